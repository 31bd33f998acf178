"""How fast a device trains and computes: steps beside a plain loop, loading, embedding, segmentation."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.inference import measure_embedding, measure_segmentation
from benchmarks.speed.made_films import synthetic_film
from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.steps import package_trainer
from cxw_monai.data.dataset import EpochSampler
from cxw_monai.networks import WorldModel, WorldModelPredictor, configure_blocks, radiograph_vit
from cxw_monai.tasks.pretraining.dataset import ViewPairDataset
from cxw_monai.tasks.pretraining.step import world_view_inputs
from cxw_monai.training import prepare_worker
from cxw_monai.training.precision import bfloat16_support
from cxw_monai.transforms import RandActiond, RandWorldViewPaird, TokenMaskSampler
from cxw_monai.transforms.device_crops import collate_films

__all__ = ["Figure", "films_per_second", "free", "loading", "matrix_peak", "step_flops", "steps"]

FILM, FILMS = 512, 32
WARM_UP = 3


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str


def amp_of(device: torch.device) -> str:
    return "bfloat16" if device.type == "cuda" else "auto"


def image_of(device: torch.device) -> int:
    """Side of a view, px: the paper's on a GPU."""
    return 224 if device.type == "cuda" else 96


def finish(device: torch.device) -> None:
    """Wait for all that was asked of a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_peak(device: torch.device, side: int, seconds: float) -> list[Figure]:
    """Most floating-point operations a second of square products in bfloat16; on a CPU of the faster dtype."""
    dtypes = [torch.bfloat16] if bfloat16_support(device) != "none" else []
    dtypes += [torch.float32] if device.type == "cpu" else []
    found = []
    for dtype in dtypes:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        a @ b
        best, end = 0.0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            finish(device)
            start = time.perf_counter()
            for _ in range(4):
                a @ b
            finish(device)
            best = max(best, 4 * 2 * side**3 / (time.perf_counter() - start))
        found.append(best)
    return [Figure("peak of matrix products", max(found) / 1e12, "TFLOP/s")]


def world_model(size: str, image: int) -> WorldModel:
    torch.manual_seed(0)
    encoder = radiograph_vit(size, image_size=image)
    return WorldModel(encoder, WorldModelPredictor(encoder.grid, encoder.embed_dim, 384, 6, encoder.num_heads))


def view_batch(batch: int, device: torch.device, image: int) -> dict[str, Tensor]:
    """A batch as the loader gives it: page-locked for CUDA."""
    dataset = view_dataset(image, cut=True)
    some = collate_films([dataset[number] for number in range(min(batch, FILMS))])
    found = {name: torch.cat([value] * -(-batch // len(value)))[:batch] for name, value in some.items()}
    return {name: value.pin_memory() for name, value in found.items()} if device.type == "cuda" else found


def step_flops(size: str, batch: int, image: int) -> float:
    """Floating-point operations of a step, by PyTorch's counter on the meta device: nothing is computed twice there."""
    meta = torch.device("meta")
    model = world_model(size, image).to(meta).train()
    inputs = world_view_inputs(view_batch(2, meta, image), TokenMaskSampler(model.encoder.grid), meta)
    with FlopCounterMode(display=False) as counter:
        model(inputs).loss.backward()
    return counter.get_total_flops() / 2 * batch


class Clock:
    """Time of steps after the first ones, until there are enough."""

    def __init__(self, device: torch.device, seconds: float, most: int) -> None:
        self.device, self.seconds, self.most = device, seconds, most
        self.count, self.start, self.elapsed = 0, 0.0, 0.0

    def stepped(self) -> bool:
        """Count a step; true once the measurement is over."""
        self.count += 1
        if self.count == WARM_UP:
            finish(self.device)
            self.start = time.perf_counter()
        over = self.count > WARM_UP and time.perf_counter() - self.start >= self.seconds
        if over or self.count == WARM_UP + self.most:
            finish(self.device)
            self.elapsed = time.perf_counter() - self.start
            return True
        return False

    @property
    def rate(self) -> float:
        """Steps a second."""
        return (self.count - WARM_UP) / self.elapsed


def steps(
    device: torch.device,
    size: str,
    batch: int,
    seconds: float,
    peak: float | None = None,
    most: int = 200,
    compile: bool = False,
    beside_plain: bool = True,
) -> list[Figure]:
    """Training steps of the package, and of the plain loop, on a batch that lies in the processor's memory.

    Args:
        device: where.
        size: of the encoder.
        batch: pairs of views.
        seconds: of each side, at least, after the first steps.
        peak: TFLOP/s of the matrix products of this device, for the step's share of it.
        most: steps of each side.
        compile: `compile_blocks` of the package's side.
        beside_plain: measure the plain loop too.
    """
    free(device)
    image = image_of(device)
    data = view_batch(batch, device, image)
    name = f"step {size} {image} px batch {batch}{' compiled' if compile else ''}"
    own = _package_steps(device, size, data, seconds, most, compile)
    found = [Figure(f"{name}, package, images/s", batch * own.rate, "images/s"), *_memory(device, f"{name}, package")]
    done = step_flops(size, batch, image) * own.rate / 1e12
    found.append(Figure(f"{name}, package, TFLOP/s", done, "TFLOP/s"))
    if peak:
        found.append(Figure(f"{name}, package, share of the peak", 100 * done / peak, "%"))
    if beside_plain:
        plain = _plain_steps(device, size, data, seconds, most)
        found += [
            Figure(f"{name}, plain loop, images/s", batch * plain.rate, "images/s"),
            *_memory(device, f"{name}, plain loop"),
        ]
        found.append(Figure(f"{name}, speed over plain", own.rate / plain.rate, "x"))
    return found


def free(device: torch.device) -> None:
    """Give back what no measurement on a GPU holds any more; trainers hold themselves until they are collected."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _memory(device: torch.device, name: str) -> list[Figure]:
    """Most memory of a CUDA device since the last call."""
    if device.type != "cuda":
        return []
    most = torch.cuda.max_memory_allocated(device)
    free(device)
    return [Figure(f"{name}, memory", most / 2**30, "GiB")]


def _package_steps(
    device: torch.device, size: str, data: dict[str, Tensor], seconds: float, most: int, compile: bool
) -> Clock:
    model = configure_blocks(world_model(size, image_of(device)).to(device), compile=compile)
    return _trained(device, model, _repeated(data), seconds, most)


def _repeated(data: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    while True:
        yield data


def _trained(device: torch.device, model: Any, batches: Any, seconds: float, most: int) -> Clock:
    clock = Clock(device, seconds, most)
    masks = TokenMaskSampler(model.encoder.grid)
    trainer = package_trainer(model, batches, WARM_UP + most, masks, amp_of(device), device)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: engine.terminate() if clock.stepped() else None
    )
    trainer.run()
    return clock


def _plain_steps(device: torch.device, size: str, data: dict[str, Tensor], seconds: float, most: int) -> Clock:
    model = world_model(size, image_of(device)).to(device)
    loop, masks = PlainLoop(model, amp_of(device)), TokenMaskSampler(model.encoder.grid)
    del model
    clock = Clock(device, seconds, most)
    while True:
        loop.step(world_view_inputs(data, masks, device))
        if clock.stepped():
            return clock


@cache
def made_films() -> list[np.ndarray]:
    """Films of 512 px, the same in every measurement."""
    return [synthetic_film(FILM, number) for number in range(FILMS)]


class Films:
    """Films in memory, in place of a cache."""

    def __init__(self) -> None:
        self.films = made_films()

    def __len__(self) -> int:
        return 2**20

    def image(self, index: int) -> np.ndarray:
        """uint8 `[1, H, W]`."""
        return self.films[index % FILMS]


def view_dataset(image: int, cut: bool) -> ViewPairDataset:
    transform = Compose([RandWorldViewPaird("image", size=image, cut=cut), RandActiond()])
    return ViewPairDataset(Films(), transform)  # type: ignore[arg-type]


def loading(
    device: torch.device, size: str, batch: int, seconds: float, workers: int | None = None, cut: bool = True
) -> list[Figure]:
    """Pairs a second that a loader brings, and images a second of a training that it feeds.

    Args:
        device: where it trains.
        size: of the encoder.
        batch: pairs of views.
        seconds: of each measurement, at least.
        workers: loader processes; by default all cores, up to 16.
        cut: crop and resize in the loader, or on the device.
    """
    workers = min(16, os.cpu_count() or 1) if workers is None else workers
    image = image_of(device)
    dataset = view_dataset(image, cut)
    sampler = EpochSampler(len(dataset))
    sampler.set_epoch(0)
    loader = DataLoader(
        dataset,
        batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_films,
        pin_memory=device.type == "cuda",
        worker_init_fn=prepare_worker,
        persistent_workers=workers > 0,
    )
    place = "in the loader" if cut else "on the device"
    name = f"{image} px, {workers} loader process{'es' * (workers != 1)}, crops {place}"
    arriving, clock = iter(loader), Clock(device, seconds, 10_000)
    while True:
        next(arriving)
        if clock.stepped():
            break
    del arriving
    model = world_model(size, image).to(device)
    fed = _trained(device, model, loader, seconds, 10_000)
    still = _trained(device, model, _repeated(view_batch(batch, device, image)), seconds, 10_000)
    return [
        Figure(f"{name}, arriving", batch * clock.rate, "pairs/s"),
        Figure(f"{name}, training {size} batch {batch}", batch * fed.rate, "images/s"),
        Figure(f"{name}, of the same without loading", 100 * fed.rate / still.rate, "%"),
    ]


def films_per_second(device: torch.device, size: str, batch: int, calls: int = 5) -> list[Figure]:
    """Films a second of embedding and segmentation, 224 px."""
    measures: Sequence[Callable[..., Any]] = (measure_embedding, measure_segmentation)
    found = [m for one in measures for m in one(3, size, amp_of(device), batch, calls=calls, device=device)]
    return [Figure(m.name, 1e3 * batch / m.summary()["median"], "films/s") for m in found]
