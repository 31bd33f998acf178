"""Settings of the pretraining bundle: training, its evaluation, and embedding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cxw_monai.settings import setting
from cxw_monai.settings.common import ReaderSettings, TrainingSettings
from cxw_monai.settings.types import AtLeast0, Count, Lower, Names, OneOrMore, Pair, Positive, Share, Size, Text, Whole

__all__ = ["EmbeddingSettings", "EvaluationSettings", "PretrainingSettings", "SeeingSettings", "WorldSettings"]


def _has_flips(data: dict[str, Any]) -> bool:
    return data["flip_prob"] > 0 and "global" in data["objectives"] and data["condition_on_geometry"]


class PretrainingSettings(TrainingSettings):
    """Training of a world model; see `WorldModelSettings` for the objectives."""

    val_interval: Count = setting(5, "epochs between validations", resume="free")
    cache_size: Count = setting(512, "shorter side of a decoded film in px, at most")
    verify_cache: bool = setting(False, "whether all decoded films are compared with their checksums", resume="free")
    monitor_every: Count = setting(20, "micro-batches between collapse monitors", resume="free")
    # networks
    network_size: Text | None = setting("small", "the encoder's: tiny, small, base, large or huge", resume="fixed")
    image_size: Size = setting(224, "side of a crop in px, or height and width", resume="fixed")
    in_channels: Count = setting(1, "channels of the encoder's input", resume="fixed")
    image_mean: OneOrMore = setting(0.5056, "mean of the films' grey values, 0 to 1", resume="fixed")
    image_std: OneOrMore = setting(0.252, "standard deviation of the films' grey values, 0 to 1", resume="fixed")
    measure_normalisation: bool = setting(
        False, "image_mean and image_std measured on the training films, for other films than chests", resume="fixed"
    )
    drop_path_rate: AtLeast0 = setting(0.0, "stochastic depth of the encoder, in [0, 1)", lt=1)
    predictor_dim: Count = setting(384, "channels of the predictor", resume="fixed")
    predictor_depth: Count = setting(6, "blocks of the predictor", resume="fixed")
    conditioning: Text = setting("feat", "how the predictor gets the action", resume="fixed")
    context_order: Text = setting("row_first", "axes of the position tables", resume="fixed")
    start_from: Text | None = setting(None, "file of an encoder to start from", resume="free")
    checkpoint_activations: bool = setting(False, "less memory for more time", resume="free")
    compile_blocks: bool = setting(False, "torch.compile of each block", resume="free")
    # objectives
    objectives: Names = setting(["local", "global", "domain"], "what is predicted", resume="fixed")
    unified: bool = setting(True, "one prediction for all objectives", resume="fixed")
    condition_on_action: bool = setting(True, "whether the predictor gets the perturbation", resume="fixed")
    condition_on_geometry: bool = setting(True, "whether the predictor gets the other crop's place", resume="fixed")
    cross_targets: Text = setting("all", "tokens of the other view to predict: all or masked", resume="fixed")
    cross_weight: AtLeast0 = setting(1.0, "weight of the cross-view loss")
    average_terms: bool = setting(True, "whether the loss is divided by 1 + cross_weight")
    loss: Text = setting("l2", "l2 or smooth_l1", resume="fixed")
    targets: Text = setting("latents", "latents, pixels, both or hog", resume="fixed")
    target_layers: Count = setting(1, "last blocks whose mean is the target", resume="fixed")
    swap_roles: bool = setting(False, "whether the context is the clean view", resume="fixed")
    variance_weight: AtLeast0 = setting(0.0, "weight of the hinge on the predictions' deviation")
    normalise_pixels: bool = setting(True, "whether pixel targets have mean 0 and variance 1", resume="fixed")
    pixel_weight: AtLeast0 | None = setting(None, "weight of the pixels beside the latents")
    target: Text = setting("ema", "whose tokens are the target: ema or online", resume="fixed")
    regulariser: Text = setting("none", "none, sigreg or variance_covariance", resume="fixed")
    regulariser_weight: Share = setting(0.05, "share of the regulariser in the loss, 0 to 1")
    pooled_weight: Positive = setting(1.0, "weight of the objective pooled, above 0")
    pooled_regulariser_weight: Share = setting(0.05, "share of SIGReg in the objective pooled, 0 to 1")
    projector_dim: Count = setting(64, "channels of the embeddings of the objective pooled", resume="fixed")
    # views
    flip_embedding: bool = setting(_has_flips, "whether the predictor gets which crops are mirrored", resume="fixed")
    crop_scale: Pair = setting([0.3, 1.0], "area of a crop as a share of the film's, low and high")
    min_overlap: Share | None = setting(None, "least overlap of the two crops, 0 to 1")
    local_crops: Whole = setting(0, "small crops of a film for the objective pooled, an even number", resume="fixed")
    local_crop_size: Size = setting(80, "side of a small crop in px, or height and width", resume="fixed")
    local_crop_scale: Pair = setting([0.1, 0.4], "area of a small crop as a share of the film's, low and high")
    crops_on: Annotated[Literal["loader", "device"], Lower] = setting("loader", "where views are cut and resized")
    base_jitter_prob: Share = setting(0.8, "probability of jitter in both views, 0 to 1")
    action_jitter_prob: Share = setting(0.8, "probability of jitter as an action, 0 to 1")
    action_blur_prob: Share = setting(0.2, "probability of blur as an action, 0 to 1")
    action_noise_prob: Share = setting(0.0, "probability of noise as an action, 0 to 1")
    # masks
    mask_strategy: Text = setting("multiblock", "multiblock, block or random")
    mask_truncation: Text | None = setting("random", "which tokens of a block stay: random or first")
    mask_targets: Count | None = setting(4, "blocks of targets")
    mask_target_scale: Pair | None = setting([0.15, 0.2], "area of a block of targets, low and high, as a share")
    mask_context_scale: Pair | None = setting([0.75, 1.0], "area of the context, low and high, as a share")
    mask_ratio: Share | None = setting(None, "share of tokens that strategy random hides, 0 to 1")
    mask_min_keep: Whole = setting(10, "least number of context tokens")
    mask_multiple: Count = setting(1, "what the numbers of context and target tokens are multiples of")
    # optimisation
    batch_size: Count = setting(64, "films of a process and micro-batch")
    epochs: Count = setting(100, "passes over the films, 1 or more")
    lr: AtLeast0 = setting(2e-4, "learning rate after the warm-up, 0 or more")
    warmup_epochs: AtLeast0 = setting(10, "epochs over which the learning rate rises")
    decay_epochs: AtLeast0 | None = setting(None, "last epochs, in which the rate falls; null for all")
    weight_decay_end: AtLeast0 = setting(0.05, "weight decay at the end")
    decay_tokens: bool = setting(False, "weight decay on mask tokens too", resume="fixed")
    ema: Share = setting(0.996, "momentum of the target encoder, 0 to 1")
    ema_end: Share = setting(1.0, "momentum of the target encoder at the end, 0 to 1")
    schedule_stretch: Positive = setting(1.0, "length of the schedules through that of the run")
    # verdict
    verdict: bool = setting(True, "whether the run ends with a page that says what it was worth", resume="free")
    labels: Names | None = setting(
        None, "binary columns of the manifest for the verdict; null for all, [none] for none", resume="free"
    )


class EvaluationSettings(PretrainingSettings):
    """Evaluation of a training's world model."""

    ckpt: Text = setting(lambda data: f"{data['output_dir']}/model.pt", "file of the world model", resume="free")
    subset: Text = setting("held_out", "films to evaluate: held_out or all", resume="free")
    verdict: bool = setting(False, "whether the verdict's page is written too", resume="free")


class WorldSettings(PretrainingSettings):
    """Tests of what a world model knows."""

    ckpt: Text = setting(lambda data: f"{data['output_dir']}/model.pt", "file of the world model or encoder")
    world_films: Count | None = setting(150, "how many films, drawn at random; null for all")
    world_tests: Names | None = setting(None, "tests to run; null for all")
    random_networks: Whole = setting(1, "the same network with random weights beside it, so many times")
    verdict_films: Count | None = setting(800, "films of the verdict, at most; null for all")


class SeeingSettings(WorldSettings):
    """The report on a network, and the page on which it is tried out."""

    ckpt: Text = setting(lambda data: f"{data['bundle_root']}/models/model.pt", "file of the world model or encoder")
    port: Count = setting(7860, "port of the page on 127.0.0.1", le=65535)


class EmbeddingSettings(ReaderSettings):
    """Embedding of films."""

    output_dir: Text = setting(lambda data: f"{data['bundle_root']}/output", "folder of the results")
    datalist: Text | None = setting(None, "CSV or JSON manifest of the films")
    ckpt: Text = setting(lambda data: f"{data['bundle_root']}/models/model.pt", "file of the encoder")
    embedding: Text = setting("pooled", "pooled or patches")
    on_error: Annotated[Literal["raise", "skip"], Lower] = setting("skip", "what is done about bad films")
    num_workers: Whole = setting(0, "processes that load films")
    batch_size: Count = setting(16, "films at a time")
    network_size: Text | None = setting("tiny", "the encoder's: tiny, small, base, large or huge")
    image_size: Size = setting(160, "side of a film in px, or height and width")
    patch_size: Count = setting(16, "side of a patch in px")
    in_channels: Count = setting(1, "channels of the encoder's input")
    image_mean: OneOrMore = setting(0.5056, "mean of the films' grey values, 0 to 1")
    image_std: OneOrMore = setting(0.252, "standard deviation of the films' grey values, 0 to 1")
