"""Settings that tasks share: how films are read, and how a run is trained."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch

from cxw_monai.io.radiograph import MAX_PIXELS

from .base import Settings
from .types import (
    AtLeast0,
    Count,
    Device,
    Lower,
    Number,
    Pair,
    Percent,
    Positive,
    Share,
    Size,
    Table,
    Text,
    Whole,
    setting,
)

__all__ = ["EncoderTuningSettings", "ReaderSettings", "TrainingSettings", "loader_processes"]


def loader_processes(most: int) -> int:
    """Half of this machine's processors, 1 to `most`."""
    return min(most, max(1, (os.cpu_count() or 2) // 2))


class ReaderSettings(Settings):
    """Where a bundle and its films are, and how a film's pixels become grey values."""

    bundle_root: Text = setting(".", "folder of the bundle", resume="free")
    dataset_dir: Text | None = setting(None, "folder of the films", resume="free")
    device: Device = setting(
        lambda: torch.device("cuda:0" if torch.cuda.is_available() else "cpu"), "device of torch", resume="free"
    )
    voi: Annotated[Literal["auto", "lut", "window", "none"], Lower] = setting("auto", "a DICOM's grey scale")
    voi_item: Whole | Text = setting(0, "which VOI LUT or window, by place or name", union_mode="left_to_right")
    window: list[Number] | None = setting(None, "center and width to apply, 2 numbers", min_length=2, max_length=2)
    percentiles: list[Percent] | None = setting(None, "low and high, to become 0 and 1", min_length=2, max_length=2)
    max_pixels: Count = setting(MAX_PIXELS, "the most pixels that are decoded")

    def reader(self) -> dict[str, Any]:
        """Keyword arguments of `cxw_monai.io.read_radiograph`."""
        return self.pick("voi", "voi_item", "window", "percentiles", "max_pixels")


class TrainingSettings(ReaderSettings):
    """What every training run has."""

    if TYPE_CHECKING:  # each task has its own default
        batch_size: int
        lr: float

    output_dir: Text = setting(lambda data: f"{data['bundle_root']}/output", "folder of the results", resume="free")
    datalist: Text | None = setting(None, "CSV or JSON manifest of the films", resume="free")
    cache_dir: Text = setting(lambda data: f"{data['output_dir']}/cache", "folder of decoded films", resume="free")
    on_error: Annotated[Literal["raise", "skip"], Lower] = setting(
        "raise", "what is done about bad films", resume="free"
    )
    resume: bool | Text | None = setting(
        False, "true for the newest checkpoint, or the path of one", resume="free", union_mode="left_to_right"
    )
    seed: Whole = setting(0, "of all random numbers, 0 or more", resume="fixed")
    rank: Whole = setting(0, "this process, from 0", resume="free")
    world_size: Count = setting(1, "number of processes")
    num_workers: Whole = setting(lambda: loader_processes(8), "processes that load films", resume="free")
    val_fraction: Number = setting(0.1, "share of the patients held out, in (0, 1)", resume="fixed", gt=0, lt=1)
    save_interval: Count = setting(5, "epochs between checkpoints", resume="free")
    save_steps: Count | None = setting(None, "micro-batches between checkpoints", resume="free")
    save_minutes: Positive | None = setting(15, "minutes between checkpoints", resume="free")
    keep_checkpoints: Count | None = setting(2, "how many checkpoints stay; null for all", resume="free")
    source_shares: Table | None = setting(
        None, "share of an epoch's films by the manifest's column source; null takes every film once"
    )
    epoch_films: Count | None = setting(
        None, "films of an epoch with source_shares; null for as many as there are", resume="fixed"
    )
    patch_size: Count = setting(16, "side of a patch in px", resume="fixed")
    accumulation_steps: Count = setting(1, "micro-batches of an optimiser step")
    global_batch_size: Count | None = setting(None, "films of an optimiser step, over all processes")
    lr_batch_size: Count | None = setting(None, "films of a step that lr is meant for; it is scaled in proportion")
    lr_end: AtLeast0 = setting(1e-6, "learning rate at the end")
    weight_decay: AtLeast0 = setting(0.05, "weight decay")
    clip_norm: Positive | None = setting(1.0, "largest norm of the gradient; null for any")
    on_non_finite: Annotated[Literal["stop", "skip"], Lower] = setting("stop", "what a step with NaN does")
    non_finite_limit: Count = setting(10, "steps with NaN in a row that stop the run")
    flip_prob: Share = setting(0.0, "probability of a mirrored film")
    crop_ratio: Pair = setting([0.75, 1.3333333], "width through height of a crop, low and high")
    amp: Annotated[Literal["auto", "bfloat16", "none"], Lower] = setting("auto", "precision of the forward pass")
    tf32: bool = setting(True, "TF32 on CUDA")


class EncoderTuningSettings(TrainingSettings):
    """Training of a task's network on a pretrained encoder: films, encoder, augmentation, optimisation."""

    test_datalist: Text | None = setting(
        None, "manifest of the test films, where they are in one of their own", resume="free"
    )
    splits: Annotated[Literal["patient", "column"], Lower] = setting("patient", "how films are split", resume="fixed")
    test_fraction: AtLeast0 = setting(0.0, "share of the patients tested at the end, in [0, 1)", resume="fixed", lt=1)
    cache_size: Count = setting(256, "shorter side of a decoded film in px, at most")
    val_interval: Count = setting(1, "epochs between validations", resume="free")
    # network
    network_size: Text | None = setting(
        None, "the encoder's: tiny, small, base, large, huge; null for its file's", resume="fixed"
    )
    image_size: Size = setting(224, "side of the network's input in px, or height and width", resume="fixed")
    drop_path_rate: AtLeast0 = setting(0.1, "stochastic depth of the encoder, in [0, 1)", lt=1)
    encoder_ckpt: Text | None = setting(
        lambda data: f"{data['bundle_root']}/../chexworld_pretraining",
        "file or bundle of an encoder; none for fresh weights",
        resume="free",
    )
    encoder_weights: Text = setting("target", "which of a world model's encoders", resume="free")
    freeze: Whole | Text = setting(
        "none", "none, encoder, or how many first blocks", resume="fixed", union_mode="left_to_right"
    )
    layer_decay: Number = setting(0.8, "factor of the learning rate from block to block, in (0, 1]", gt=0, le=1)
    # augmentation
    crop_prob: Share = setting(0.5, "probability of a crop, 0 to 1")
    crop_scale: Pair = setting([0.4, 1.0], "area of a crop as a share of the film's, low and high")
    affine_prob: Share = setting(0.8, "probability of an affine map, 0 to 1")
    rotate: AtLeast0 = setting(10.0, "largest rotation in degrees")
    shear: AtLeast0 = setting(5.0, "largest shear in degrees")
    zoom: Pair = setting([0.9, 1.1], "low and high")
    translate: AtLeast0 = setting(0.05, "largest shift as a share of the side")
    distortion_prob: Share = setting(0.2, "probability of an elastic distortion, 0 to 1")
    distortion: AtLeast0 = setting(0.03, "largest distortion as a share of the side")
    jitter_prob: Share = setting(0.8, "probability of each of brightness, contrast and gamma, 0 to 1")
    brightness: Pair = setting([0.8, 1.2], "factor, low and high")
    contrast: Pair = setting([0.8, 1.2], "factor, low and high")
    gamma: Pair = setting([0.7, 1.4], "exponent, low and high")
    blur_prob: Share = setting(0.2, "probability of blur, 0 to 1")
    blur: Pair = setting([0.1, 1.5], "deviation of the blur in px, low and high")
    noise_prob: Share = setting(0.2, "probability of noise, 0 to 1")
    noise: Pair = setting([0.005, 0.03], "deviation of the noise, low and high, of grey values 0 to 1")
    # optimisation
    batch_size: Count = setting(16, "films of a process and micro-batch")
    epochs: Count = setting(50, "passes over the films, 1 or more")
    lr: AtLeast0 = setting(5e-4, "learning rate after the warm-up, 0 or more")
    warmup_epochs: AtLeast0 = setting(2, "epochs over which the learning rate rises")
    patience: Count | None = setting(None, "validations without a better one that end the run; null for never")
