"""Speed and memory of a training step, beside the same step in plain PyTorch.

Each side runs in a process of its own, so that its peak memory is its own, and the two take turns, step by step, so
that a busy machine is busy for both. Ratios are of processor time: other processes' share of the cores does not count.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from cxw_monai.networks import WorldModel, WorldModelPredictor, WorldModelSettings, configure_blocks, radiograph_vit
from cxw_monai.tasks.pretraining.step import PretrainingStep, world_view_inputs
from cxw_monai.training import (
    PretrainingSchedules,
    keep_freed_memory,
    parameter_groups,
)
from cxw_monai.transforms import RandActiond, RandWorldViewPaird, TokenMaskSampler

from .figures import Measurement, short_name
from .made_films import synthetic_film
from .plain_loop import PlainLoop
from .processes import peak_bytes, process_context

__all__ = ["measure_processes", "measure_step", "package_trainer"]

PACKAGE, PLAIN = "package", "plain loop"
WARM_UP = 3
"""Steps that are not timed: they allocate the optimiser's state and compile blocks and products of common shapes."""
_MIB = 2**20


def measure_step(
    repeats: int,
    size: str = "tiny",
    amp: str = "none",
    batch: int = 16,
    image_size: int = 224,
    predictor_dim: int = 384,
    predictor_depth: int = 6,
    cross_targets: str = "all",
    checkpoint: bool = False,
    compile: bool = False,
    beside_plain: bool = True,
) -> list[Measurement]:
    """Training steps: perturbation, masks, forward, backward, clip, AdamW, moving average.

    Both sides take the same batch and start from the same weights; their first steps are not timed (`WARM_UP`). What is
    not an argument is the default of :class:`WorldModel`.

    Args:
        repeats: steps that are timed.
        size: encoder, a name that :func:`cxw_monai.networks.radiograph_vit` takes.
        amp: "none" (fp32) or "bfloat16" (autocast; fp32 where the processor does not compute it).
        batch: pairs of views.
        image_size: px; patches have 16.
        predictor_dim, predictor_depth: its channels and blocks.
        cross_targets: tokens of the other view that are predicted, "all" or "masked".
        checkpoint, compile: of the package's blocks (see ``configure_blocks``).
        beside_plain: measure :class:`PlainLoop` too.

    Returns:
        Images a second (of wall time) and peak resident memory of each side; with both also how many times the plain
        loop's speed the package has (processor time of a step, paired), and its share of the plain loop's memory.
    """
    settings = {
        **{"size": size, "amp": amp, "batch": batch, "image_size": image_size, "cross_targets": cross_targets},
        "predictor": (predictor_dim, predictor_depth),
        "blocks": {"checkpoint": checkpoint, "compile": compile},
        "steps": repeats + WARM_UP,
        "threads": torch.get_num_threads(),
    }
    sides = (PACKAGE, PLAIN) if beside_plain else (PACKAGE,)
    steps, peaks = _alternating({side: [settings] for side in sides})
    options = [name for name, chosen in (("checkpoint", checkpoint), ("compile", compile)) if chosen]
    name = " ".join([_name(settings), *options])
    found = []
    for side in sides:
        found.append(Measurement(f"{name}, {side}", "images/s", [batch / wall for wall, _ in steps[side][WARM_UP:]]))
        found.append(Measurement(f"{name}, {side}", "images/cpu-s", [batch / cpu for _, cpu in steps[side][WARM_UP:]]))
        if peaks[side] is not None:
            found.append(Measurement(f"{name}, {side}, peak", "MiB", [peaks[side] / _MIB]))
    if beside_plain:
        pairs = zip(steps[PLAIN][WARM_UP:], steps[PACKAGE][WARM_UP:], strict=True)
        found.append(Measurement(f"{name}, speed over plain", "x", [plain / ours for (_, plain), (_, ours) in pairs]))
        if peaks[PACKAGE] is not None and peaks[PLAIN] is not None:
            found.append(Measurement(f"{name}, memory over plain", "x", [peaks[PACKAGE] / peaks[PLAIN]]))
    return found


def measure_processes(
    repeats: int, size: str = "tiny", amp: str = "none", batch: int = 16, image_size: int = 224
) -> list[Measurement]:
    """Training steps of one process with all threads, and of two that share batch and threads (gloo).

    Args:
        repeats: steps that are timed.
        size, amp, batch, image_size: see :func:`measure_step`; an even batch.

    Returns:
        Images a second of both, the share of one process's throughput that two have, and the same of processor time.
    """
    threads = torch.get_num_threads()
    alone = {"size": size, "amp": amp, "batch": batch, "image_size": image_size, "cross_targets": "all"}
    alone |= {"predictor": (384, 6), "blocks": {}, "steps": repeats + WARM_UP, "threads": threads}
    half = {**alone, "batch": batch // 2, "threads": max(1, threads // 2), "world_size": 2}
    with TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        steps, _ = _alternating({"one": [alone], "two": [{**half, "rank": r, "store": store} for r in range(2)]})
    name = _name(alone)
    one, two = steps["one"][WARM_UP:], steps["two"][WARM_UP:]
    found = [
        Measurement(f"{name}, {side} process{'es' * (side == 'two')}", "images/s", [batch / wall for wall, _ in times])
        for side, times in (("one", one), ("two", two))
    ]
    for number, kind in enumerate(("throughput", "processor time")):
        ratios = [first[number] / second[number] for first, second in zip(one, two, strict=True)]
        found.append(Measurement(f"{name}, two processes over one, {kind}", "x", ratios))
    return found


def _name(settings: Mapping[str, Any]) -> str:
    precision = short_name("cpu", settings["amp"])
    return f"training step {settings['size']} {precision} {settings['image_size']} px batch {settings['batch']}"


def _alternating(
    sides: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, int | None]]:
    """(wall, processor) seconds of each side's steps, taken in turns, and peak bytes.

    A side is one process or several, each with settings of its own; the slowest decides the side's time, and processor
    time and memory are sums.
    """
    context = process_context("benchmarks.speed.cases")
    connections: dict[str, list[Connection]] = {side: [] for side in sides}
    processes = []
    for side, members in sides.items():
        for settings in members:
            ours, theirs = context.Pipe()
            connections[side].append(ours)
            processes.append(context.Process(target=_side, args=(theirs, side, settings)))
            processes[-1].start()
            theirs.close()
    count = next(iter(sides.values()))[0]["steps"]
    steps: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    peaks: dict[str, int | None] = {}
    try:
        for _ in range(count):
            for side, members in connections.items():
                for connection in members:
                    with contextlib.suppress(ConnectionError):  # a side that has failed: what it sent is received next
                        connection.send("step")
                wall, processor = zip(*(_received(connection) for connection in members), strict=True)
                steps[side].append((max(wall), sum(processor)))
        for side, members in connections.items():
            found = [_received(connection) for connection in members]
            peaks[side] = None if None in found else sum(found)
    except (EOFError, ConnectionError):
        raise RuntimeError("a side's process was killed, usually for want of memory") from None
    finally:
        for members in connections.values():
            for connection in members:
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
    if "rank" in settings:
        place = f"file://{settings['store']}"
        dist.init_process_group("gloo", place, rank=settings["rank"], world_size=settings["world_size"])
    run = _run_plain if side == PLAIN else _run_package
    try:
        encoder = radiograph_vit(settings["size"], image_size=settings["image_size"])
        predictor = WorldModelPredictor(encoder.grid, encoder.embed_dim, *settings["predictor"], encoder.num_heads)
        model = WorldModel(encoder, predictor, WorldModelSettings(cross_targets=settings["cross_targets"]))
        run(connection, model, _view_batch(settings["batch"], settings["image_size"]), settings)
        connection.send(peak_bytes())
        if dist.is_initialized():
            dist.destroy_process_group()
    except (EOFError, ConnectionError):  # the measurement was given up
        return
    except Exception as error:  # reported by the parent, unless it has given up already
        with contextlib.suppress(ConnectionError):
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
    network = configure_blocks(model, **settings["blocks"])
    if dist.is_initialized():
        network = nn.parallel.DistributedDataParallel(network)
    masks = TokenMaskSampler(grid=model.encoder.grid)
    trainer = package_trainer(network, batches(), settings["steps"], masks, settings["amp"])
    trainer.add_event_handler(Events.ITERATION_COMPLETED, completed)
    trainer.run()


def package_trainer(
    network: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    steps: int,
    masks: TokenMaskSampler,
    amp: str = "none",
    device: str | torch.device = "cpu",
    lr: float = 2e-4,
) -> SupervisedTrainer:
    """The trainer of the pretraining bundle without its handlers, for one epoch.

    Args:
        network: a world model on the device, wrapped or sharded where it is to be.
        batches: as many as there are steps.
        steps: of the run; collapse monitors are computed in the first.
        masks: sampler of token masks.
        amp: `bfloat16`, `none` or `auto`.
        device: where to compute.
        lr: peak learning rate.
    """
    device = torch.device(device)
    schedules = PretrainingSchedules(steps_per_epoch=steps, epochs=1, lr=lr)
    fused = device.type != "meta"
    return SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=batches,
        epoch_length=steps,
        network=network,
        optimizer=torch.optim.AdamW(parameter_groups(network), lr=lr, weight_decay=0.05, fused=fused),
        loss_function=None,
        iteration_update=PretrainingStep(masks, schedules, amp=amp, monitor_every=steps),
        inferer=SimpleInferer(),
        decollate=False,
    )
