"""Speed and memory of a training step, beside the same step in plain PyTorch.

Each side runs in a process of its own, so that its peak memory is its own, and the two take turns, step by step, so
that a busy machine is busy for both. Ratios are of processor time: other processes' share of the cores does not count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import Tensor

from cxw_monai.engines import (
    PretrainingSchedules,
    PretrainingStep,
    keep_freed_memory,
    parameter_groups,
    world_view_inputs,
)
from cxw_monai.networks import WorldModel, WorldModelPredictor, WorldModelSettings, configure_blocks, radiograph_vit
from cxw_monai.transforms import RandActiond, RandWorldViewPaird, TokenMaskSampler

from .benchmark_figures import Measurement
from .benchmark_processes import peak_bytes, process_context
from .plain_loop import PlainLoop
from .view_pipelines import synthetic_film

__all__ = ["measure_step"]

PACKAGE, PLAIN = "package", "plain loop"
_MIB = 2**20


def measure_step(
    repeats: int,
    size: str = "tiny",
    amp: str = "none",
    batch: int = 16,
    image_size: int = 224,
    patch_size: int = 16,
    predictor_dim: int = 384,
    predictor_depth: int = 6,
    cross_targets: str = "all",
    checkpoint: bool = False,
    compile: bool = False,
    beside_plain: bool = True,
) -> list[Measurement]:
    """Training steps: perturbation, masks, forward, backward, clip, AdamW, moving average.

    Both sides take the same batch and start from the same weights. The first step, which allocates the optimiser's
    state (and compiles), is not timed. What is not an argument is the default of :class:`WorldModel`.

    Args:
        repeats: steps that are timed.
        size: encoder, a name that :func:`cxw_monai.networks.radiograph_vit` takes.
        amp: "none" (fp32) or "bfloat16" (autocast).
        batch: pairs of views.
        image_size, patch_size: px.
        predictor_dim, predictor_depth: its channels and blocks.
        cross_targets: tokens of the other view that are predicted, "all" or "masked".
        checkpoint, compile: of the package's blocks (see ``configure_blocks``).
        beside_plain: measure :class:`PlainLoop` too.

    Returns:
        Images a second (of wall time) and peak resident memory of each side; with both also how many times the plain
        loop's speed the package has (processor time of a step, paired), and its share of the plain loop's memory.
    """
    settings = {
        "size": size,
        "amp": amp,
        "batch": batch,
        "image_size": image_size,
        "patch_size": patch_size,
        "predictor": (predictor_dim, predictor_depth),
        "cross_targets": cross_targets,
        "blocks": {"checkpoint": checkpoint, "compile": compile},
        "steps": repeats + 1,
        "threads": torch.get_num_threads(),
    }
    sides = (PACKAGE, PLAIN) if beside_plain else (PACKAGE,)
    steps, peaks = _alternating(sides, settings)
    options = [name for name, chosen in (("checkpoint", checkpoint), ("compile", compile)) if chosen]
    precision = {"none": "fp32", "bfloat16": "bf16"}.get(amp, amp)
    name = " ".join([f"training step {size} {precision} {image_size} px batch {batch}", *options])
    found = []
    for side in sides:
        found.append(Measurement(f"{name}, {side}", "images/s", [batch / wall for wall, _ in steps[side][1:]]))
        found.append(Measurement(f"{name}, {side}", "images/cpu-s", [batch / cpu for _, cpu in steps[side][1:]]))
        if peaks[side] is not None:
            found.append(Measurement(f"{name}, {side}, peak", "MiB", [peaks[side] / _MIB]))
    if beside_plain:
        pairs = zip(steps[PLAIN][1:], steps[PACKAGE][1:], strict=True)
        found.append(Measurement(f"{name}, speed over plain", "x", [plain / ours for (_, plain), (_, ours) in pairs]))
        if peaks[PACKAGE] is not None and peaks[PLAIN] is not None:
            found.append(Measurement(f"{name}, memory over plain", "x", [peaks[PACKAGE] / peaks[PLAIN]]))
    return found


def _alternating(
    sides: tuple[str, ...], settings: dict[str, Any]
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, int | None]]:
    """(wall, processor) seconds of each side's steps, taken in turns, and peak bytes."""
    context = process_context("cxw_monai.evaluation.benchmark")
    connections, processes = {}, []
    for side in sides:
        connections[side], theirs = context.Pipe()
        processes.append(context.Process(target=_side, args=(theirs, side, settings)))
        processes[-1].start()
        theirs.close()
    steps: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    try:
        for _ in range(settings["steps"]):
            for side, connection in connections.items():
                connection.send("step")
                steps[side].append(_received(connection))
        peaks = {side: _received(connection) for side, connection in connections.items()}
    except (EOFError, ConnectionError):
        raise RuntimeError("a side's process was killed, usually for want of memory") from None
    finally:
        for connection in connections.values():
            connection.close()
        for process in processes:
            process.join()
    return steps, peaks


def _received(connection: Connection) -> Any:
    """What a side sends; its error, which is text, is raised."""
    answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)  # noqa: TRY004
    return answer


def _side(connection: Connection, side: str, settings: dict[str, Any]) -> None:
    """Body of a side's process: a step for every message, its time the answer; the peak of memory at the end."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    run = _run_plain if side == PLAIN else _run_package
    try:
        encoder = radiograph_vit(settings["size"], image_size=settings["image_size"], patch_size=settings["patch_size"])
        predictor = WorldModelPredictor(encoder.grid, encoder.embed_dim, *settings["predictor"], encoder.num_heads)
        model = WorldModel(encoder, predictor, WorldModelSettings(cross_targets=settings["cross_targets"]))
        run(connection, model, _view_batch(settings["batch"], settings["image_size"]), settings)
        connection.send(peak_bytes())
    except (EOFError, ConnectionError):  # the measurement was given up
        return
    except Exception as error:  # reported by the parent
        connection.send(f"{type(error).__name__}: {error}")


def _view_batch(batch: int, image_size: int) -> dict[str, Tensor]:
    """A batch as the loader gives it."""
    views, actions = RandWorldViewPaird(size=image_size), RandActiond()
    views.set_random_state(0)
    actions.set_random_state(0)
    films = [synthetic_film(2 * image_size, number) for number in range(batch)]
    return torch.utils.data.default_collate([actions(views({"image": film})) for film in films])


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _run_plain(connection: Connection, model: WorldModel, data: dict[str, Tensor], settings: dict[str, Any]) -> None:
    loop, masks = PlainLoop(model, settings["amp"]), TokenMaskSampler(grid=model.encoder.grid)
    del model
    for _ in range(settings["steps"]):
        connection.recv()
        wall, processor = _now()
        loop.step(world_view_inputs(data, masks, torch.device("cpu")))
        connection.send(tuple(after - before for after, before in zip(_now(), (wall, processor), strict=True)))


def _run_package(connection: Connection, model: WorldModel, data: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """The trainer of the bundle without its handlers; its loader waits for the other side to end its step."""
    started = (0.0, 0.0)

    def batches() -> Iterator[dict[str, Tensor]]:
        nonlocal started
        for _ in range(settings["steps"]):
            connection.recv()
            started = _now()
            yield data

    def completed() -> None:
        connection.send(tuple(after - before for after, before in zip(_now(), started, strict=True)))

    keep_freed_memory()
    configure_blocks(model, **settings["blocks"])
    schedules = PretrainingSchedules(steps_per_epoch=settings["steps"], epochs=1, lr=2e-4)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches(),
        epoch_length=settings["steps"],
        network=model,
        optimizer=torch.optim.AdamW(parameter_groups(model), lr=2e-4, weight_decay=0.05, fused=True),
        loss_function=None,
        iteration_update=PretrainingStep(
            TokenMaskSampler(grid=model.encoder.grid), schedules, amp=settings["amp"], monitor_every=settings["steps"]
        ),
        inferer=SimpleInferer(),
        decollate=False,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, completed)
    trainer.run()
