"""The pretraining step, its checkpoints and its resume, on a real MONAI trainer with a very small world model."""

import copy
import csv
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import DataLoader

from cxw_monai.data.cache import build_cache
from cxw_monai.data.dataset import EpochSampler
from cxw_monai.networks import RadiographEmbedder, RadiographViT, WorldModel, WorldModelPredictor, WorldModelSettings
from cxw_monai.tasks.pretraining.dataset import ViewPairDataset
from cxw_monai.tasks.pretraining.step import PretrainingStep, world_view_inputs
from cxw_monai.training import (
    EpochMeans,
    NonFiniteLossError,
    PretrainingSchedules,
    RunRecord,
    RunState,
    SamplerEpoch,
    parameter_groups,
    run_training,
)
from cxw_monai.transforms import ActionSampler, RandActiond, RandWorldViewPaird, TokenMaskSampler, perturb
from cxw_monai.weights.encoder import CheckpointError, load_weights

SIZE, PATCH, BATCH = 48, 8, 4


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    items = []
    for number in range(10):
        pixels = rng.integers(0, 256, (9, 9)).astype(np.uint8)
        path = folder / f"film{number}.png"
        Image.fromarray(pixels).resize((70, 60), Image.Resampling.BICUBIC).save(path)
        items.append({"image": str(path)})
    return build_cache(items, folder / "cache", size=56, progress=False)


def world_model(**settings):
    torch.manual_seed(0)
    encoder = RadiographViT(image_size=SIZE, patch_size=PATCH, embed_dim=16, depth=1, num_heads=2)
    predictor = WorldModelPredictor(encoder.grid, 16, 16, depth=1, num_heads=2)
    return WorldModel(encoder, predictor, WorldModelSettings(**settings))


def dataset_of(cache, noise_prob=0.0):
    actions = RandActiond(sampler=ActionSampler(noise_prob=noise_prob))
    return ViewPairDataset(cache, Compose([RandWorldViewPaird("image", size=SIZE), actions]), seed=3)


def make_run(
    cache,
    folder,
    epochs=3,
    workers=0,
    accumulation=1,
    lr=1e-3,
    clip=1.0,
    model=None,
    handlers=(),
    every=1,
):
    """A trainer and its run state, as the bundle's config puts them together."""
    network = model or world_model()
    dataset = dataset_of(cache)
    sampler = EpochSampler(len(dataset), seed=3)
    loader = DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, drop_last=True)
    schedules = PretrainingSchedules(len(loader), epochs, lr, warmup_epochs=1, ema=0.9)
    masks = TokenMaskSampler(grid=(SIZE // PATCH, SIZE // PATCH), min_keep=4, seed=3)
    step = PretrainingStep(masks, schedules, clip_norm=clip, amp="none", monitor_every=1)
    state = RunState(folder, step, every=every)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(parameter_groups(network), lr=lr),
        loss_function=None,
        iteration_update=step,
        accumulation_steps=accumulation,
        decollate=False,
        train_handlers=[SamplerEpoch(sampler, BATCH), EpochMeans(), RunRecord(folder), *handlers],
    )
    state.attach(trainer)
    return trainer, state


def weights(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_moves_encoder_and_target_and_logs_what_it_did(cache, tmp_path):
    trainer, state = make_run(cache, tmp_path)
    before = weights(trainer)
    run_training(trainer, state)
    after = weights(trainer)
    assert not torch.equal(before["encoder.blocks.0.attn.qkv.weight"], after["encoder.blocks.0.attn.qkv.weight"])
    assert not torch.equal(before["target_encoder.norm.bias"], after["target_encoder.norm.bias"])
    assert torch.equal(before["encoder.pos_embed"], after["encoder.pos_embed"])
    metrics = trainer.state.metrics
    assert {"loss", "loss_intra", "loss_cross", "lr", "ema", "gradient_norm", "target_std", "prediction_rank"} <= set(
        metrics
    )
    assert metrics["loss"] == pytest.approx((metrics["loss_intra"] + metrics["loss_cross"]) / 2, rel=1e-5)


def test_the_record_has_a_value_only_where_one_was_measured(cache, tmp_path):
    validator = SimpleNamespace(state=SimpleNamespace(epoch=2, metrics={"loss": 0.5}))
    trainer, state = make_run(cache, tmp_path, epochs=3, handlers=[RunRecord(tmp_path / "r", validator)])
    run_training(trainer, state)
    with (tmp_path / "r/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val_loss"] for row in rows] == ["", "0.5", ""]
    assert all(row["target_rank"] and row["target_image_std"] for row in rows)


def test_the_first_step_has_learning_rate_zero_and_changes_nothing(cache, tmp_path):
    trainer, state = make_run(cache, tmp_path, epochs=1)
    before = weights(trainer)
    stop = trainer.state
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: engine.terminate() if stop.iteration == 1 else None
    )
    trainer.run()
    assert_same(before, weights(trainer))


def test_target_follows_by_the_scheduled_momentum(cache, tmp_path):
    trainer, _ = make_run(cache, tmp_path, epochs=2)
    step = trainer._process_function
    name = "norm.weight"
    seen = []

    def check(engine):
        parameters = dict(engine.network.named_parameters())
        online, target = parameters[f"encoder.{name}"].data, parameters[f"target_encoder.{name}"].data
        if seen:
            momentum = step.schedules.ema(engine.state.iteration - 1)
            torch.testing.assert_close(target, momentum * seen[-1] + (1 - momentum) * online)
        seen.append(target.clone())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, check)
    trainer.run()
    assert len(seen) == 4 and not torch.equal(seen[0], seen[-1])


def test_accumulated_micro_batches_step_once_and_average_gradients(cache, tmp_path):
    trainer, _ = make_run(cache, tmp_path, epochs=2, accumulation=2)
    changes, previous = [], weights(trainer)["encoder.patch_embed.proj.weight"]

    def check(engine):
        nonlocal previous
        now = weights(engine)["encoder.patch_embed.proj.weight"]
        changes.append(not torch.equal(now, previous))
        previous = now

    trainer.add_event_handler(Events.ITERATION_COMPLETED, check)
    trainer.run()
    assert changes == [False, True, False, True]
    assert "gradient_norm" in trainer.state.metrics


def test_an_odd_last_group_is_applied_at_the_end_of_the_epoch(cache, tmp_path):
    trainer, _ = make_run(cache, tmp_path, epochs=2, accumulation=3)
    applied = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: applied.append("gradient_norm" in engine.state.output[0]["scalars"])
    )
    trainer.run()
    assert applied == [False, True, False, True]


def test_gradients_are_clipped(cache, tmp_path):
    norms = []

    def run(clip):
        trainer, _ = make_run(cache, tmp_path / str(clip), epochs=2, clip=clip)
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine: norms.append(
                torch.stack([p.grad.norm() for p in engine.network.parameters() if p.grad is not None]).norm().item()
            ),
        )
        trainer.run()

    run(1e-3)
    assert max(norms) <= 1e-3 * 1.01
    norms.clear()
    run(None)
    assert max(norms) > 1e-2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_repeats_the_numbers_of_an_uninterrupted_one(cache, tmp_path, workers):
    whole, whole_state = make_run(cache, tmp_path / "whole", epochs=4)
    run_training(whole, whole_state)

    cut, cut_state = make_run(cache, tmp_path / "cut", epochs=4)
    cut.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: engine.terminate() if engine.state.epoch == 2 else None
    )
    run_training(cut, cut_state)
    torch.manual_seed(99)  # whatever happened to the process in between
    np.random.seed(99)
    model = world_model()
    with torch.no_grad():
        model.encoder.norm.weight.fill_(7.0)
    again, again_state = make_run(cache, tmp_path / "cut", epochs=4, workers=workers, model=model)
    run_training(again, again_state, resume=True)

    assert_same(weights(whole), weights(again))
    assert (tmp_path / "whole/metrics.csv").read_text().splitlines()[0].startswith("epoch,iteration")
    columns = [line.split(",")[:2] for line in (tmp_path / "cut/metrics.csv").read_text().splitlines()[1:]]
    assert columns == [["1", "2"], ["2", "4"], ["3", "6"], ["4", "8"]]


def poison_step(trainer, number):
    """Puts a NaN into the images of one step; returns where the weights before it will be noted."""
    kept = {}

    def poison(engine):
        if engine.state.iteration == number - 1:  # the batch is fetched before the iteration is counted
            kept.update(weights(engine))
            engine.state.batch["view1"][0, 0, 0, 0] = float("nan")

    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, poison)
    return kept


def test_a_checkpoint_in_the_middle_of_an_epoch_resumes_to_the_same_numbers(cache, tmp_path):
    whole, whole_state = make_run(cache, tmp_path / "whole", epochs=3)
    run_training(whole, whole_state)
    cut, cut_state = make_run(cache, tmp_path / "cut", epochs=3)
    poison_step(cut, 4)
    with pytest.raises(NonFiniteLossError):
        run_training(cut, cut_state)
    again, again_state = make_run(cache, tmp_path / "cut", epochs=3)
    again_state.load(again, tmp_path / "cut/checkpoint_before_failure.pt")
    assert again.state.iteration == 3
    again.run()
    assert_same(weights(whole), weights(again))


def test_a_failure_within_accumulated_steps_goes_back_to_the_groups_start(cache, tmp_path):
    whole, whole_state = make_run(cache, tmp_path / "whole", epochs=3, accumulation=2)
    run_training(whole, whole_state)
    cut, cut_state = make_run(cache, tmp_path / "cut", epochs=3, accumulation=2)
    poison_step(cut, 4)
    with pytest.raises(NonFiniteLossError):
        run_training(cut, cut_state)
    again, again_state = make_run(cache, tmp_path / "cut", epochs=3, accumulation=2)
    run_training(again, again_state, resume=str(tmp_path / "cut/checkpoint_before_failure.pt"))
    assert_same(weights(whole), weights(again))


def test_a_finished_run_stays_as_it_is(cache, tmp_path, caplog):
    trainer, state = make_run(cache, tmp_path, epochs=1)
    run_training(trainer, state)
    stamp = (tmp_path / "model.pt").stat().st_mtime_ns
    again, again_state = make_run(cache, tmp_path, epochs=1)
    with caplog.at_level(logging.INFO):
        run_training(again, again_state, resume=True)
    assert "has finished" in caplog.text
    assert (tmp_path / "model.pt").stat().st_mtime_ns == stamp


def test_a_new_run_does_not_overwrite_an_old_one(cache, tmp_path):
    trainer, state = make_run(cache, tmp_path, epochs=1)
    run_training(trainer, state)
    with pytest.raises(FileExistsError, match="--resume true"):
        run_training(*make_run(cache, tmp_path, epochs=1))


def test_checkpoints_are_thinned_and_the_last_epoch_is_always_saved(cache, tmp_path):
    trainer, state = make_run(cache, tmp_path, epochs=5, every=2)
    run_training(trainer, state)
    assert [path.name for path in state.files.all()] == ["checkpoint_epoch=4.pt", "checkpoint_epoch=5.pt"]
    assert not list(tmp_path.glob("*.part"))


def test_the_saved_weights_load_elsewhere(cache, tmp_path):
    trainer, state = make_run(cache, tmp_path, epochs=1)
    run_training(trainer, state)
    target = trainer.network.target_encoder
    encoder = RadiographViT(image_size=SIZE, patch_size=PATCH, embed_dim=16, depth=1, num_heads=2)
    for name in ("model.pt", "encoder.pt", "checkpoint_epoch=1.pt"):
        load_weights(encoder, tmp_path / name)
        assert_same(dict(encoder.state_dict()), dict(target.state_dict()))
    embedder = RadiographEmbedder(encoder)
    embedder.load_state_dict(torch.load(tmp_path / "encoder.pt", weights_only=True))


def test_a_loss_that_is_not_finite_stops_the_run_before_it_touches_the_weights(cache, tmp_path):
    model = world_model()
    trainer, state = make_run(cache, tmp_path, epochs=3, model=model)
    kept = poison_step(trainer, 3)
    with pytest.raises(
        NonFiniteLossError, match=r"loss is nan at step 3\..*checkpoint_before_failure\.pt.*learning rate"
    ):
        run_training(trainer, state)
    saved = torch.load(tmp_path / "checkpoint_before_failure.pt", weights_only=True)
    assert_same(kept, saved["model"])
    assert saved["iteration"] == 2


def test_an_infinite_gradient_stops_the_run_too(cache, tmp_path):
    model = world_model()
    trainer, state = make_run(cache, tmp_path, epochs=1, model=model)
    model.encoder.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLossError, match="gradient norm"):
        run_training(trainer, state)
    assert torch.isfinite(model.encoder.blocks[0].mlp.fc1.weight).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["model"].pop("encoder.norm.bias"), "of another network"),
        (lambda content: content.update(epoch_length=77), "made with 77 batches an epoch, this run has 2"),
        (lambda content: content["processes"].append(content["processes"][0]), "made by 2 processes, this run has 1"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(cache, tmp_path, change, said):
    trainer, state = make_run(cache, tmp_path, epochs=1)
    run_training(trainer, state)
    path = tmp_path / "checkpoint_epoch=1.pt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=said) as caught:
        run_training(*make_run(cache, tmp_path, epochs=1), resume=True)
    assert str(path) in str(caught.value)


def test_an_epoch_without_a_batch_is_refused(cache, tmp_path):
    small = copy.copy(cache)
    small.items, small._places = cache.items[:2], cache._places[:2]
    dataset = dataset_of(small)
    loader = DataLoader(dataset, BATCH, sampler=EpochSampler(2), drop_last=True)
    with pytest.raises(ValueError, match="steps_per_epoch and epochs must be positive"):
        PretrainingSchedules(len(loader), 3, lr=1e-3)


def test_inputs_are_the_perturbed_views_with_masks_of_both_orders(cache):
    dataset = dataset_of(cache)
    batch = next(iter(DataLoader(dataset, 6)))
    masks = TokenMaskSampler(grid=(6, 6), min_keep=4, seed=1)
    expected = copy.deepcopy(masks).sample(6)
    inputs = world_view_inputs(batch, masks, torch.device("cpu"))
    assert torch.equal(inputs.perturbed1, perturb(batch["view1"], batch["action1"]))
    assert torch.equal(inputs.context1, expected.context)
    assert torch.equal(inputs.target2, expected.target[expected.permutation])
    assert torch.equal(inputs.rel_21, batch["rel_21"])
    clean = world_view_inputs(batch, masks, torch.device("cpu"), perturbed=False)
    assert torch.equal(clean.perturbed2, batch["view2"])


def test_noise_is_drawn_where_an_action_asks_for_it(cache):
    batch = next(iter(DataLoader(dataset_of(cache, noise_prob=1.0), 4)))
    assert (batch["action1"][:, 4] > 0).all()
    masks = TokenMaskSampler(grid=(6, 6), min_keep=4)
    torch.manual_seed(5)
    first = world_view_inputs(batch, masks, torch.device("cpu"))
    torch.manual_seed(5)
    second = world_view_inputs(batch, masks, torch.device("cpu"))
    assert torch.equal(first.perturbed1, second.perturbed1)
    noiseless = batch["action1"].clone()
    noiseless[:, 4] = 0
    assert not torch.equal(first.perturbed1, perturb(batch["view1"], noiseless))


def test_wrong_settings_are_named():
    masks = TokenMaskSampler(grid=(6, 6), min_keep=4)
    schedules = PretrainingSchedules(2, 2, lr=1e-3)
    with pytest.raises(ValueError, match="amp must be"):
        PretrainingStep(masks, schedules, amp="half")
    with pytest.raises(ValueError, match="monitor_every"):
        PretrainingStep(masks, schedules, monitor_every=0)
    with pytest.raises(ValueError, match="every and keep"):
        RunState("folder", PretrainingStep(masks, schedules), every=0)
