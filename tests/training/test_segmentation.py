"""Training steps, scores, best epoch, checkpoints and resume of segmentation, on a real MONAI trainer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import DataLoader

from cxw_monai.data.dataset import EpochSampler
from cxw_monai.losses import DiceBCELoss
from cxw_monai.networks import RadiographSegmenter, RadiographViT
from cxw_monai.tasks.segmentation.dataset import SegmentationDataset, annotated_films
from cxw_monai.tasks.segmentation.dice_scores import DiceScores
from cxw_monai.tasks.segmentation.evaluation import (
    FilmScoring,
    SegmentationEvaluationStep,
    evaluate_films,
    test_best,
)
from cxw_monai.tasks.segmentation.step import SegmentationStep
from cxw_monai.training import EpochMeans, NonFiniteLossError, RunState, SamplerEpoch, run_training, warmup_cosine
from cxw_monai.training.best_model import CheckpointSaver, EarlyStopHandler
from cxw_monai.training.parameter_groups import layer_decay_groups
from cxw_monai.transforms.warp import RandFilmWarpd
from cxw_monai.transforms.whole_film import WholeFilmd
from cxw_monai.weights.encoder import CheckpointError

NAMES = ("disc", "ring")
SIZE = 32


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Eight films of 40 x 48 px with a disc; the ring is unknown on every other one."""
    folder = tmp_path_factory.mktemp("films")
    items = []
    for number in range(8):
        rows, columns = np.ogrid[:40, :48]
        distance = np.hypot(rows - 20, columns - 16 - 2 * number)
        disc, ring = distance < 9, (distance >= 9) & (distance < 13)
        Image.fromarray((200 * disc + 100 * ring + 20).astype(np.uint8)).save(folder / f"{number}.png")
        masks = {}
        for name, mask in (("disc", disc), ("ring", ring)):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{number}_{name}.png")
            if name == "disc" or number % 2:
                masks[name] = [str(folder / f"{number}_{name}.png")]
        items.append({"image": str(folder / f"{number}.png"), "id": f"film{number}", "masks": masks})
    return annotated_films(items, NAMES, folder / "cache", 64, progress=False)


def segmenter(decoder="unet"):
    torch.manual_seed(0)
    encoder = RadiographViT(image_size=SIZE, patch_size=8, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.2)
    return RadiographSegmenter(encoder, NAMES, decoder, base_channels=4)


class Run:
    """A trainer with everything around it, as the bundle's config puts it together."""

    def __init__(
        self, films, folder, epochs=3, patience=None, every=1, accumulation=1, lr=1e-3, loss=None, decoder="unet"
    ):
        self.folder, self.network = folder, segmenter(decoder)
        folder.mkdir(exist_ok=True)
        warp = Compose([RandFilmWarpd(SIZE, NAMES)])
        dataset, whole = (SegmentationDataset(films, t, seed=3) for t in (warp, WholeFilmd(SIZE)))
        sampler = EpochSampler(len(dataset), seed=3)
        generator = torch.Generator().manual_seed(3)  # else the loader draws from the global one
        loader = DataLoader(dataset, 2, sampler=sampler, drop_last=True, generator=generator)
        loss = loss or DiceBCELoss()
        self.scores = FilmScoring(films, DiceScores)
        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(whole, 4),
            network=self.network,
            iteration_update=SegmentationEvaluationStep(loss, amp="none"),
            decollate=False,
            val_handlers=[EpochMeans(), self.scores],
        )
        self.best = CheckpointSaver(folder / "model.pt", self._save, self.evaluator)
        self.step = SegmentationStep(loss, warmup_cosine(lr, 0.0, len(loader), epochs, 1), amp="none")
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=loader,
            network=self.network,
            optimizer=torch.optim.AdamW(layer_decay_groups(self.network, 0.5), lr=lr),
            loss_function=None,
            iteration_update=self.step,
            accumulation_steps=accumulation,
            decollate=False,
            train_handlers=[
                SamplerEpoch(sampler, 2),
                EpochMeans(),
                ValidationHandler(1, self.evaluator),
                self.best,
                EarlyStopHandler(patience, self.best),
            ],
        )
        self.state = RunState(folder, self.step, every=every, keep=None, best=self.best)
        self.state.attach(self.trainer)

    @staticmethod
    def _save(network, path):
        torch.save(network.state_dict(), path)

    def run(self, resume=False):
        run_training(self.trainer, self.state, resume)
        return self

    def weights(self):
        return {name: value.clone() for name, value in self.network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dice_of_films_is_counted_by_hand():
    scores = DiceScores(["a", "b"])
    half = np.zeros((2, 4, 4), bool)
    half[0, :2] = True
    top = np.zeros((2, 4, 4), bool)
    top[0, 0] = True
    scores.add("one", None, half, top, np.array([True, True]), None)  # a: 2 * 4 / (8 + 4); b: both empty
    scores.add("two", None, half, half, np.array([True, False]), None)  # a: 1; b unknown
    assert scores.summary() == pytest.approx({"dice": (5 / 6 + 1) / 2, "dice_a": 5 / 6, "dice_b": 1.0})
    scores.add("three", None, half[::-1], half, np.array([False, True]), None)  # b: found where there is none
    assert scores.summary()["dice_b"] == pytest.approx(0.5)


def test_scores_need_something_known():
    scores = DiceScores(["a"])
    scores.add("one", None, np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool), np.array([False]))
    with pytest.raises(ValueError, match="None of the 1 films"):
        scores.summary()


def test_films_are_scored_on_their_own_pixels(films, tmp_path):
    """Logits at half the film's size: a perfect network still reaches nearly 1, on masks of the film's size."""

    class Perfect(torch.nn.Module):
        def forward(self, image):
            return (image - 170 / 255) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)  # halfway between disc and ring

    scores = FilmScoring(films, DiceScores)
    dataset = SegmentationDataset(films, WholeFilmd((20, 24)))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, 3),
        network=Perfect(),
        iteration_update=SegmentationEvaluationStep(DiceBCELoss(), amp="none"),
        decollate=False,
        val_handlers=[scores],
    )
    evaluate_films(evaluator, scores, tmp_path)
    assert evaluator.state.metrics["dice_disc"] > 0.93 and evaluator.state.metrics["dice_ring"] == 0
    lines = (tmp_path / "films.csv").read_text().splitlines()
    assert lines[0] == "film,dice_disc,dice_ring" and len(lines) == 9
    name, disc, ring = lines[1].split(",")
    assert name == "film0" and float(disc) > 0.93 and ring == ""  # the ring is unknown there


def test_logits_are_brought_to_the_film_linearly_and_cut_at_0():
    """Logits -1 and 5 on four columns: -1, 0.5, 3.5, 5. Logits -3 and 3: -3, -1.5, 1.5, 3. Exactly 0 is outside."""

    class Films:
        structures = ("a", "b", "c")
        name = patient = known = spacing_mm = staticmethod(lambda index: index)
        label = staticmethod(lambda index: np.zeros((3, 2, 4), bool))
        image = staticmethod(lambda index: np.zeros((1, 2, 4)))

    class Kept:
        def __init__(self, structures):
            self.masks = []

        def add(self, name, patient, pred, *about):
            self.masks.append(pred)

    scores = FilmScoring(Films(), Kept)
    logits = torch.tensor([[[[-1.0, 5.0]], [[-3.0, 3.0]], [[0.0, 0.0]]]])
    scores._step(SimpleNamespace(state=SimpleNamespace(output=[{"index": [7], "logits": logits}])))
    expected = [[[False, True, True, True]] * 2, [[False, False, True, True]] * 2, [[False] * 4] * 2]
    assert scores.scores.masks[0].tolist() == expected


def test_training_learns_and_keeps_the_best_epoch(films, tmp_path):
    run = Run(films, tmp_path, epochs=8, lr=5e-3).run()
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    assert run.best.score > 0.3 and 0 < run.best.epoch <= 8
    assert_same(kept, torch.load(tmp_path / f"checkpoint_epoch={run.best.epoch}.pt", weights_only=True)["model"])
    run.network.load_state_dict(kept)
    run.evaluator.run()
    assert run.evaluator.state.metrics["dice"] == pytest.approx(run.best.score, abs=1e-6)


def test_learning_rates_fall_with_depth(films, tmp_path):
    run = Run(films, tmp_path, epochs=2).run()
    top = run.step.schedule(run.trainer.state.iteration - 1)
    assert {group["lr"] for group in run.trainer.optimizer.param_groups} == {top * 0.5**k for k in range(4)}


@pytest.mark.parametrize("stop_after", [5, 8])  # within an epoch of four steps, and at its end
def test_a_resumed_run_repeats_the_numbers_of_one_that_was_not_stopped(films, tmp_path, stop_after):
    whole = Run(films, tmp_path / "whole", epochs=4).run()
    killed = Run(films, tmp_path / "killed", epochs=4)

    class KilledError(Exception):
        pass

    def kill(engine):
        if engine.state.iteration == stop_after:
            raise KilledError

    killed.trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
    with pytest.raises(KilledError):
        killed.run()
    torch.manual_seed(99)
    resumed = Run(films, tmp_path / "killed", epochs=4).run(resume=True)
    assert_same(resumed.weights(), whole.weights())
    assert resumed.best.state_dict() == whole.best.state_dict()
    assert_same(*(torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "killed")))


def test_a_run_without_progress_stops_and_stays_stopped(films, tmp_path):
    still = {"epochs": 20, "every": 7, "lr": 0.0, "decoder": "linear"}  # without batch statistics nothing changes
    run = Run(films, tmp_path, patience=2, **still).run()
    assert run.trainer.state.epoch == 3  # the first is the best, two more do not pass it
    assert [path.name for path in run.state.files.all()] == ["checkpoint_epoch=3.pt"]
    again = Run(films, tmp_path, patience=2, **still).run(resume=True)
    assert again.trainer.state.epoch == 3 and again.best.waited == 2
    longer = Run(films, tmp_path, patience=3, **still).run(resume=True)
    assert longer.trainer.state.epoch == 4


def test_accumulated_gradients_are_those_of_the_whole_batch(films):
    """A linear decoder has no batch statistics; every film here counts as much as any other."""
    dataset = SegmentationDataset(films, WholeFilmd(SIZE))
    samples = [dataset[i] for i in range(4)]
    batch = {name: torch.stack([torch.as_tensor(s[name]) for s in samples]) for name in samples[0]}
    batch["known"] = torch.ones_like(batch["known"])
    found = []
    for parts in (1, 2):
        network = segmenter("linear")
        for block in network.encoder.blocks:
            block.drop_path = torch.nn.Identity()
        groups = layer_decay_groups(network, 1.0)
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[{k: v[i::parts] for k, v in batch.items()} for i in range(parts)],
            network=network,
            optimizer=torch.optim.SGD(groups, lr=1.0),
            loss_function=None,
            iteration_update=SegmentationStep(DiceBCELoss(), lambda step: 1.0, clip_norm=None, amp="none"),
            accumulation_steps=parts,
            decollate=False,
        )
        trainer.run()
        found.append(network.state_dict())
    start = segmenter("linear").state_dict()
    name = "encoder.blocks.0.attn.qkv.weight"
    assert not torch.equal(found[0][name], start[name])
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_weights_and_can_be_gone_on_from(films, tmp_path):
    class Bad(DiceBCELoss):
        calls = 0

        def forward(self, logits, label, known):
            Bad.calls += torch.is_grad_enabled()
            terms = super().forward(logits, label, known)
            return {**terms, "loss": terms["loss"] * (float("nan") if Bad.calls == 6 else 1)}

    run = Run(films, tmp_path, loss=Bad())
    with pytest.raises(NonFiniteLossError, match="step 6.*checkpoint_before_failure"):
        run.run()
    again = Run(films, tmp_path).run(resume=str(tmp_path / "checkpoint_before_failure.pt"))
    whole = Run(films, tmp_path / "whole").run()
    assert_same(again.weights(), whole.weights())
    assert again.best.state_dict() == whole.best.state_dict()


def test_checkpoints_of_another_run_are_refused(films, tmp_path):
    Run(films, tmp_path, epochs=1).run()
    with pytest.raises(FileExistsError, match="--resume true"):
        Run(films, tmp_path).run()
    other = Run(films, tmp_path)
    other.network.decoder.head = torch.nn.Conv2d(4, 3, 1)
    with pytest.raises(CheckpointError, match="of another run"):
        other.run(resume=True)


def test_there_is_no_test_without_films_and_only_one_with(films, tmp_path, caplog):
    caplog.set_level("INFO")
    empty = FilmScoring(annotated_films([], NAMES, tmp_path), DiceScores)
    test_best(None, empty, None, tmp_path / "model.pt", tmp_path / "test")
    assert "No test films" in caplog.text
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "films.csv").write_text("")
    scores, model = FilmScoring(films, DiceScores), tmp_path / "model.pt"
    with pytest.raises(CheckpointError, match=r"model\.pt"):  # half a result is made again, so the model is looked for
        test_best(None, scores, torch.nn.Identity(), model, tmp_path / "done")
    assert "done already" not in caplog.text
    (tmp_path / "done" / "summary.json").write_text("{}")
    test_best(None, scores, None, model, tmp_path / "done")
    assert "done already" in caplog.text


def test_an_epoch_without_steps_is_told():
    with pytest.raises(ValueError, match="fewer training films than batch_size"):
        warmup_cosine(1e-3, 0, 0, 5)
    schedule = warmup_cosine(1.0, 0.1, 10, 5, 1)
    assert schedule(0) == 0 and schedule(9) == 1 and schedule(49) == pytest.approx(0.1)
