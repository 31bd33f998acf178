"""Checks of training on a device: steps, resuming, blocks in other ways, waiting, memory."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.steps import package_trainer
from cxw_monai.networks import WorldModel, configure_blocks
from cxw_monai.tasks.pretraining.step import world_view_inputs
from cxw_monai.training import RunState, run_training
from cxw_monai.training import step as training_step

from .outcome import CheckFailedError, NotApplicableError, compared, require
from .parts import exact_products, loader_batch, masks_of, outputs_of, placed, small_model

__all__ = ["checkpointing", "compiled", "memory_growth", "resuming", "step_weights", "waits"]

STEPS = 4
GROWTH_STEPS = 200
LR = 1e-3


def trainer_of(model: WorldModel, device: torch.device, steps: int = STEPS, **options: Any) -> SupervisedTrainer:
    """A trainer of a network that is on the device, with a batch for all steps."""
    batch = loader_batch(**options)
    return package_trainer(model, [batch] * steps, steps, masks_of(model), device=device, lr=LR)


def step_of(trainer: SupervisedTrainer) -> Any:
    """The trainer's iteration update."""
    return trainer._process_function


def weights_of(model: WorldModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def step_weights(device: torch.device) -> str:
    """All weights, the target's too, after steps of the bundle's trainer in float64, as on the CPU."""
    found = []
    for place in (device, torch.device("cpu")):
        model = placed(small_model().double(), place)
        trainer_of(model, place, noise=False).run()
        found.append(weights_of(model))
    before = small_model().double().state_dict()
    moved = max((value.cpu() - before[name]).abs().max().item() for name, value in found[0].items())
    require(moved > LR / 10, f"{STEPS} steps moved no weight by more than {moved:.1e}")
    return compared(*found, 0.01 * LR)


def resuming(device: torch.device) -> str:
    """A run that is saved, thrown away and resumed ends with the bits of an uninterrupted one."""
    with TemporaryDirectory() as place, deterministic_kernels():
        whole, again = (_run(device, Path(place) / name) for name in ("whole", "again"))
        _run(device, Path(place) / "parts", stop_after=STEPS // 2)
        resumed = _run(device, Path(place) / "parts", resume=True)
    differing = [name for name, value in whole.items() if not torch.equal(value, resumed[name])]
    if differing and any(not torch.equal(value, again[name]) for name, value in whole.items()):
        text = compared(resumed, whole, 1e-5)
        return f"{text}; two uninterrupted runs differ too, the kernels here aren't deterministic"
    require(not differing, f"{len(differing)} of {len(whole)} tensors differ, such as {differing[:2]}")
    return f"{len(whole)} tensors equal to the bit"


def _run(device: torch.device, folder: Path, stop_after: int | None = None, resume: bool = False) -> dict[str, Tensor]:
    """Weights and moments at the end of a run."""
    torch.manual_seed(1 if resume else 0)
    model = placed(small_model(), device)
    trainer = trainer_of(model, device)
    state = RunState(folder, step_of(trainer), save_steps=1 if stop_after else None)
    state.attach(trainer)
    if stop_after:
        event = Events.ITERATION_COMPLETED(once=stop_after)
        trainer.add_event_handler(event, lambda engine: engine.terminate())
    run_training(trainer, state, resume)
    moments = {
        f"{name} {number}": value
        for number, values in trainer.optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    return {**weights_of(model), **moments}


@contextlib.contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Kernels that repeat their bits, where there are such."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def checkpointing(device: torch.device) -> str:
    """`checkpoint_activations` gives the same outputs and gradients."""
    return _blocks_computed(device, checkpoint=True)


def compiled(device: torch.device) -> str:
    """`compile_blocks` gives the same outputs and gradients, for two numbers of tokens."""
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("gcc") is None:
        raise NotApplicableError("no C++ compiler here: install g++")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise NotApplicableError("Triton is not installed")
    return _blocks_computed(device, compile=True)


def _blocks_computed(device: torch.device, **options: bool) -> str:
    plain = placed(small_model(depth=1), device)
    other = configure_blocks(placed(small_model(depth=1), device), **options)
    masks = masks_of(plain)
    found: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    with exact_products():
        for number in range(2):
            torch.manual_seed(0)
            inputs = world_view_inputs(loader_batch(), masks, device)
            for model, into in ((plain, expected), (other, found)):
                model.zero_grad()
                outputs = outputs_of(model, inputs)
                outputs["loss"].backward()
                into |= {f"{name} {number}": value for name, value in outputs.items()}
                into |= {f"gradient of {name} {number}": gradient for name, gradient in gradients_of(model)}
    require(any(name.startswith("gradient") for name in expected), "there are no gradients")
    return compared(found, expected, 1e-4)


def gradients_of(model: WorldModel) -> list[tuple[str, Tensor]]:
    return [(name, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None]


class BlockingCopies(TorchDispatchMode):
    """Collects copies from the CPU to a device that make the processor wait."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.found = device, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            target = kwargs.get("device")
            leaves = target is not None and torch.device(target).type == self.device.type
            if leaves and args[0].device.type != self.device.type and not kwargs.get("non_blocking"):
                self.found.append(f"a blocking copy of {tuple(args[0].shape)}")
        return func(*args, **kwargs)


def waits(device: torch.device) -> str:
    """A step waits for the device once, to read its numbers, and nowhere else.

    On CUDA torch's synchronisation debug mode raises where something else waits. Elsewhere steps run on the meta
    device, where reading a value raises, and copies to it are seen.
    """
    variants = {
        "views of the loader": ({}, {}),
        "views cut on the device": ({}, {"cut": False}),
        "small crops and a regulariser": (
            {"objectives": ("local", "pooled"), "regulariser": "sigreg"},
            {"local_crops": True},
        ),
    }
    place = device if device.type == "cuda" else torch.device("meta")
    for name, (settings, options) in variants.items():
        model = placed(small_model(**settings), place)
        trainer = trainer_of(model, place, steps=3, **options)
        with watched_reads(place) as reads:
            _steps_watched(trainer, place, name)
        require(len(reads) == 3, f"{name}: {len(reads)} reads in 3 steps, expected one a step")
    return f"one read a step ({'CUDA' if place.type == 'cuda' else 'on the meta device'})"


def _steps_watched(trainer: SupervisedTrainer, place: torch.device, name: str) -> None:
    step_of(trainer).monitors = lambda output, position: {}  # they wait, every so many steps
    copies = BlockingCopies(place)
    try:
        with copies, without_autocast(place):
            trainer.run()
    except (RuntimeError, NotImplementedError) as error:
        raise CheckFailedError(f"{name}: {' '.join(str(error).split())[:300]}") from error
    require(not copies.found, f"{name}: {'; '.join(copies.found[:3])}")


@contextlib.contextmanager
def without_autocast(place: torch.device) -> Iterator[None]:
    """Autocast does nothing where the meta device, which it refuses, is in use."""
    autocast = torch.autocast
    if place.type == "meta":
        torch.autocast = lambda *_, **__: contextlib.nullcontext()  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = autocast  # type: ignore[misc]


@contextlib.contextmanager
def watched_reads(place: torch.device) -> Iterator[list[int]]:
    """Forbids to wait for a device but in `read_values`; gives how many values each of its calls read."""
    read, counts = training_step.read_values, []

    def counted(values: Sequence[Tensor]) -> list[float]:
        counts.append(len(values))
        if place.type != "cuda":
            return [1.0] * len(values)
        torch.cuda.set_sync_debug_mode("default")
        found = read(values)
        torch.cuda.set_sync_debug_mode("error")
        return found

    training_step.read_values = counted
    if place.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield counts
    finally:
        training_step.read_values = read
        if place.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def memory_growth(device: torch.device) -> str:
    """No tensor more is alive after 200 steps than after the first tenth of them."""
    model = placed(small_model(depth=1), device)
    trainer = trainer_of(model, device, steps=GROWTH_STEPS, count=2)
    held: dict[int, tuple[int, int]] = {}

    def look() -> None:
        gc.collect()
        allocated = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        held[trainer.state.iteration] = (living_bytes(), allocated)

    for step in (GROWTH_STEPS // 10, GROWTH_STEPS):
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=step), look)
    trainer.run()
    (first, first_allocated), (last, last_allocated) = held.values()
    require(last - first < 2**16, f"tensors grew by {last - first} bytes")
    require(last_allocated - first_allocated < 2**20, f"CUDA's memory grew by {last_allocated - first_allocated} bytes")
    return f"{last / 2**20:.1f} MiB of tensors after step {GROWTH_STEPS}, {first / 2**20:.1f} before"


def living_bytes() -> int:
    """Bytes of all tensors that Python knows of, each storage once."""
    sizes: Mapping[int, int] = {
        one.untyped_storage()._cdata: one.untyped_storage().nbytes()
        for one in gc.get_objects()
        if type(one) in (Tensor, nn.Parameter) and one.layout == torch.strided
    }
    return sum(sizes.values())
