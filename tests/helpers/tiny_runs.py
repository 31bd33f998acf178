"""Very small training runs, made for processes of their own (`forks`) that tests can end as a machine would."""

from __future__ import annotations

import importlib.machinery
import json
import logging
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # else every process imports it, for its optimiser
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.transforms import Compose
from monai.utils import set_determinism
from PIL import Image
from torch.utils.data import DataLoader

from cxw_monai.data.cache import build_cache
from cxw_monai.data.dataset import EpochSampler
from cxw_monai.io.results import folders
from cxw_monai.losses import DiceBCELoss
from cxw_monai.networks import RadiographSegmenter, RadiographViT, WorldModel, WorldModelPredictor
from cxw_monai.tasks.pretraining.dataset import ViewPairDataset
from cxw_monai.tasks.pretraining.step import PretrainingStep
from cxw_monai.tasks.segmentation.dataset import SegmentationDataset, annotated_films
from cxw_monai.tasks.segmentation.dice_scores import DiceScores
from cxw_monai.tasks.segmentation.evaluation import FilmScoring, SegmentationEvaluationStep
from cxw_monai.tasks.segmentation.step import SegmentationStep
from cxw_monai.training import (
    EpochMeans,
    NonFiniteSteps,
    PretrainingSchedules,
    RunRecord,
    RunState,
    SamplerEpoch,
    hold_output,
    install_error_hook,
    parameter_groups,
    prepare_worker,
    run_training,
    warmup_cosine,
)
from cxw_monai.training.best_model import CheckpointSaver
from cxw_monai.training.checkpoint_files import write_checkpoint
from cxw_monai.training.sharding import shard_world_model
from cxw_monai.transforms import ActionSampler, RandActiond, RandWorldViewPaird, TokenMaskSampler
from cxw_monai.transforms.warp import RandFilmWarpd
from cxw_monai.transforms.whole_film import WholeFilmd

SIZE, PATCH, FILMS = 32, 8, 24


def make_films(folder):
    """Two dozen films of 40 x 48 px with a disc and its mask, and `items.json`, which lists them."""
    folder.mkdir(exist_ok=True)
    items = []
    for number in range(FILMS):
        rows, columns = np.ogrid[:40, :48]
        disc = np.hypot(rows - 20, columns - 12 - number) < 9
        noise = np.random.default_rng(number).integers(0, 40, disc.shape)
        Image.fromarray((180 * disc + noise).astype(np.uint8)).save(folder / f"{number:02}.png")
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / f"{number:02}_disc.png")
        masks = {"disc": [str(folder / f"{number:02}_disc.png")]}
        items.append({"image": str(folder / f"{number:02}.png"), "id": f"film{number}", "masks": masks})
    (folder / "items.json").write_text(json.dumps(items))


def encoder(drop_path):
    torch.manual_seed(0)
    return RadiographViT(SIZE, PATCH, embed_dim=16, depth=2, num_heads=2, drop_path_rate=drop_path)


class OneMask:
    """Masks that are the same for every film, so that a loss does not depend on which process drew them."""

    def __init__(self, masks):
        self.masks = masks
        self.one = masks.sample(1)

    def sample(self, batch_size):
        one = self.one
        context, target = (tokens.expand(batch_size, -1) for tokens in (one.context, one.target))
        return type(one)(context=context, target=target, permutation=torch.arange(batch_size))

    def state_dict(self):
        return self.masks.state_dict()

    def load_state_dict(self, state):
        self.masks.load_state_dict(state)


class TinyRun:
    """A trainer with everything around it, as the bundles' configs put it together.

    The settings are those of the bundles, and `kind` (`pretraining` or `segmentation`), `films` (folder with the
    films' items), `same_masks`, `drop_path` and `sharded`.
    """

    def __init__(self, s):
        self.settings, self.folder = s, Path(s["folder"])
        self.rank, self.world = s.get("rank", 0), s.get("world", 1)
        set_determinism(self.rank)
        self.items = json.loads((Path(s["films"]) / "items.json").read_text())
        dataset = self.dataset()
        sampler = EpochSampler(len(dataset), seed=3, rank=self.rank, world_size=self.world)
        workers = s.get("workers", 0)
        loader = DataLoader(
            dataset,
            s["batch_size"],
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0 and s.get("persistent", True),
            worker_init_fn=prepare_worker,
            generator=torch.Generator().manual_seed(3),
            drop_last=True,
        )
        self.steps_per_epoch = len(loader)
        network = self.network = self.make_network()
        if s.get("sharded"):
            shard_world_model(network)
        elif self.world > 1:
            network = torch.nn.parallel.DistributedDataParallel(network)
        self.step, means = self.make_step(), EpochMeans()
        handlers = [SamplerEpoch(sampler, s["batch_size"]), means, *self.handlers(), RunRecord(self.folder)]
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=s.get("epochs", 2),
            train_data_loader=loader,
            network=network,
            optimizer=torch.optim.AdamW(parameter_groups(network), lr=1e-3, fused=True),
            loss_function=None,
            iteration_update=self.step,
            accumulation_steps=s.get("accumulation", 1),
            decollate=False,
            train_handlers=handlers,
        )
        saving = {name: s[name] for name in ("every", "keep", "save_steps", "save_minutes") if name in s}
        self.state = self.make_state(parts={"means": means}, **saving)
        self.state.attach(self.trainer)

    def handlers(self):
        return []

    def non_finite(self):
        return NonFiniteSteps(self.settings.get("on_non_finite", "stop"), self.settings.get("limit", 10))


class TinyPretraining(TinyRun):
    def dataset(self):
        cache = build_cache(self.items, Path(self.settings["films"]) / "cache", size=40, progress=False)
        actions = RandActiond(sampler=ActionSampler(noise_prob=self.settings.get("noise_prob", 1.0)))
        return ViewPairDataset(cache, Compose([RandWorldViewPaird("image", size=SIZE), actions]), seed=3)

    def make_network(self):
        vit = encoder(self.settings.get("drop_path", 0.2))
        return WorldModel(vit, WorldModelPredictor(vit.grid, 16, 16, depth=1, num_heads=2))

    def make_step(self):
        s = self.settings
        constant = {"lr_end": 1e-3, "ema_end": 0.9} if s.get("constant") else {"warmup_epochs": 1}
        schedules = PretrainingSchedules(self.steps_per_epoch, s.get("epochs", 2), 1e-3, ema=0.9, **constant)
        masks = TokenMaskSampler(grid=(SIZE // PATCH,) * 2, min_keep=2, seed=3 + self.rank)
        masks = OneMask(TokenMaskSampler(masks.grid, min_keep=2, seed=3)) if s.get("same_masks") else masks
        return PretrainingStep(masks, schedules, amp="none", non_finite=self.non_finite())

    def make_state(self, **saving):
        return RunState(self.folder, self.step, **saving)


class TinySegmentation(TinyRun):
    def films(self):
        films = Path(self.settings["films"])
        return annotated_films(self.items, ("disc",), films / "masks", 40, progress=False)

    def dataset(self):
        return SegmentationDataset(self.films(), Compose([RandFilmWarpd(SIZE, ("disc",))]), seed=3)

    def make_network(self):
        return RadiographSegmenter(encoder(0.2), ("disc",), "unet", base_channels=4)

    def make_step(self):
        schedule = warmup_cosine(1e-3, 0.0, self.steps_per_epoch, self.settings.get("epochs", 2), 1)
        return SegmentationStep(DiceBCELoss(), schedule, amp="none", non_finite=self.non_finite())

    def handlers(self):
        films = self.films()
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(SegmentationDataset(films, WholeFilmd(SIZE)), 12),
            network=self.network,
            iteration_update=SegmentationEvaluationStep(DiceBCELoss(), amp="none"),
            decollate=False,
            val_handlers=[EpochMeans(), FilmScoring(films, DiceScores)],
        )
        self.best = CheckpointSaver(self.folder / "model.pt", self.keep_best, evaluator)
        return [ValidationHandler(1, evaluator), self.best]

    @staticmethod
    def keep_best(network, path):
        write_checkpoint(network.state_dict(), path)

    def make_state(self, **saving):
        return RunState(self.folder, self.step, best=self.best, **saving)


def pause(mark):
    """Tell by a file that this process has come here, and wait until the file is gone."""
    mark.touch()
    while mark.exists():
        time.sleep(0.005)


def attach_events(run):
    """What the settings ask to happen in the middle of the run."""
    s, trainer, folder = run.settings, run.trainer, run.folder

    def before_step(engine):
        step = engine.state.iteration  # counted from 1; the step itself has not been done
        if step == s.get("pause_before"):
            pause(folder / f"paused_{run.rank}")
        if run.rank == s.get("poison_rank", 0) and step in s.get("poison", ()):
            engine.state.batch["view1" if "view1" in engine.state.batch else "image"][0, 0, 0, 0] = float("nan")

    def after_step(engine):
        output = engine.state.output[0]
        losses.append((engine.state.iteration, output["loss"].item()))

    losses = []
    trainer.add_event_handler(Events.ITERATION_STARTED, before_step)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, after_step)
    return losses


def train(settings):
    """Do the run; its losses by step go to `losses_<rank>.json`."""
    folder = Path(settings["folder"])
    __main__ = sys.modules["__main__"]
    __main__.__spec__ = importlib.machinery.ModuleSpec("monai.bundle.__main__", None)  # as the bundles' command
    install_error_hook()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    if settings.get("world", 1) > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{settings['store']}", rank=settings["rank"], world_size=settings["world"]
        )
    run = {"pretraining": TinyPretraining, "segmentation": TinySegmentation}[settings.get("kind", "pretraining")]
    run = run(settings)
    if settings.get("unlocked"):
        folders._locked = lambda folder: None  # as on a network's disk without locks; an open lock bars a remount
    if run.rank == 0:
        hold_output(folder)
    losses = attach_events(run)
    run_training(run.trainer, run.state, settings.get("resume", False))
    (folder / f"losses_{run.rank}.json").write_text(json.dumps(losses))
    if settings.get("world", 1) > 1:
        dist.destroy_process_group()


def child(settings):
    """A run in this forked process: its output in a file, its limits."""
    log = os.open(settings["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    if "largest_file" in settings:
        resource.setrlimit(resource.RLIMIT_FSIZE, (settings["largest_file"],) * 2)
    train(settings)
