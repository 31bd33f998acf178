"""All tests of a world model on a manifest or a folder, beside the same network at random; resumable."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxw_monai import __version__
from cxw_monai.data.manifest import load_items
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.metrics.descriptors import with_random_weights
from cxw_monai.metrics.world.correspondence import correspondence_scores
from cxw_monai.metrics.world.encoding import (
    composition_scores,
    localizability_scores,
    position_scores,
    spread_scores,
)
from cxw_monai.metrics.world.films import WorldFilms, read_world_films
from cxw_monai.metrics.world.prediction import domain_scores, layout_scores, local_scores
from cxw_monai.metrics.world.ridge import FOLDS
from cxw_monai.metrics.world.scores import WorldScore, summary
from cxw_monai.metrics.world.surprise import surprise_scores
from cxw_monai.metrics.world.worlds import EncoderWorld, ModelWorld, World
from cxw_monai.networks import WorldModel
from cxw_monai.settings.names import nearest
from cxw_monai.tasks.pages import write_html
from cxw_monai.weights.encoder import load_encoder, load_weights
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import Weights, read_weights

from .components import check_labels, network_to_load
from .settings import WorldSettings

__all__ = ["TESTS", "content_key", "measure_world", "table_lines", "world_of"]

Test = Callable[[World, WorldFilms, int], list[WorldScore]]

TESTS: dict[str, Test] = {
    "domain": domain_scores,
    "layout": layout_scores,
    "local": local_scores,
    "position": position_scores,
    "composition": composition_scores,
    "localizability": localizability_scores,
    "correspondence": correspondence_scores,
    "spread": spread_scores,
    "surprise": surprise_scores,
}
COLUMNS = ("network", "test", "measure", "condition", "value", "low", "high", "chance", "better", "films")
OWN = "this network"
_TEMPLATE = Path(__file__).with_name("world_report.html.j2")

logger = logging.getLogger(__name__)


def world_of(settings: WorldSettings, weights: Weights, random_seed: int | None = None) -> EncoderWorld:
    """The network of a file: a world model where it has a predictor, else its encoder.

    Args:
        settings: of the run that made it.
        weights: of `ckpt`.
        random_seed: give it the weights of a new network of this seed.

    Raises:
        CheckpointError: the file can't be used, is of other settings, or of a network that was trained for a task.
    """
    if weights.kind != "encoder":
        reason = f"weights of kind {weights.kind!r}, not of a pretraining run"
        raise CheckpointError(weights.path, reason, "give model.pt or encoder.pt of the pretraining that it began with")
    if any(name.startswith("predictor.") for name in weights.state):
        model = network_to_load(settings)
        load_weights(model, weights)
        if random_seed is not None:
            _renew(model, settings, random_seed)
        return ModelWorld(model.to(settings.device), settings.amp)
    encoder = load_encoder(weights).encoder
    if random_seed is not None:
        encoder = with_random_weights(encoder, random_seed)
    return EncoderWorld(encoder.to(settings.device), settings.amp)


def _renew(model: WorldModel, settings: WorldSettings, seed: int) -> None:
    """Give a world model the weights of a new one; position tables and normalisation stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = dict(network_to_load(settings).named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(new[name])
    model.update_target(0.0)


def measure_world(settings: WorldSettings) -> list[dict[str, Any]]:
    """Run the tests and write `world/` of `output_dir`: `scores.json`, `scores.csv`, `scores.md`, `index.html`.

    Each test of each network is kept in `world/parts`; a part that is there for the same weights, films, settings and
    seed is not computed again.

    Raises:
        ValueError: an unknown test, or films of fewer than four patients.
        CheckpointError: see `world_of`.
    """
    tests = list(TESTS) if settings.world_tests is None else settings.world_tests
    if unknown := [name for name in tests if name not in TESTS]:
        raise ValueError(
            f"world_tests must be some of {', '.join(TESTS)}, got {unknown[0]!r}{nearest(unknown[0], TESTS)}"
        )
    weights, folder = read_weights(settings.ckpt), Path(settings.output_dir) / "world"
    names = {OWN: None, **{f"random weights, seed {seed}": seed for seed in range(settings.random_networks)}}
    worlds = {name: world_of(settings, weights, seed) for name, seed in names.items()}
    items = load_items(settings.dataset_dir, settings.datalist, section="all")
    if settings.verdict:
        check_labels(settings, items)  # the verdict comes last
    size = worlds[OWN].size
    films = read_world_films(items, size, settings.world_films, settings.seed, settings.reader())
    if (patients := len(np.unique(films.patients))) < FOLDS:
        raise ValueError(
            f"{settings.datalist or settings.dataset_dir}: the tests need films of at least {FOLDS} patients, got "
            f"{len(films)} films of {patients}; give more films, or raise world_films"
        )
    key = content_key(settings, weights, films)
    rows = []
    for name, world in worlds.items():
        for test in tests:
            part = folder / "parts" / f"{test}_{hashlib.sha256(f'{key} {name}'.encode()).hexdigest()[:12]}.json"
            if not part.is_file():
                logger.info("%s: %s", name, test)
                scores = TESTS[test](world, films, settings.seed)
                found = [dict(summary(score, films.patients, settings.seed)) for score in scores]
                _write_json(part, [{"network": name, **row} for row in found])
            rows += json.loads(part.read_text(encoding="utf-8"))
    _write(folder, rows, films, settings)
    logger.info("Wrote %s.", folder)
    return rows


def content_key(settings: WorldSettings, weights: Weights, films: WorldFilms) -> str:
    """The same for the same version, weights, films and settings: all that a score is computed from."""
    fixed = [name for name, field in WorldSettings.model_fields.items() if "fixed" in str(field.json_schema_extra)]
    plain = settings.pick(*fixed, "amp", "device")
    known = (plain, films.rows, films.patients.tolist(), films.shapes, films.spacing_mm, list(films.pixels.shape))
    digest = hashlib.sha256(json.dumps([__version__, *known], default=str).encode())
    digest.update(films.pixels.numpy().tobytes())
    for name, tensor in sorted(weights.state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2) + "\n")


def _write(folder: Path, rows: Sequence[Mapping[str, Any]], films: WorldFilms, settings: WorldSettings) -> None:
    about = {
        "ckpt": str(settings.ckpt),
        "films": len(films),
        "patients": len(np.unique(films.patients)),
        "seed": settings.seed,
        "unreadable": films.unreadable,
    }
    _write_json(folder / "scores.json", {**about, "scores": list(rows)})
    with atomic_file(folder / "scores.csv", "w", encoding="utf-8", newline="") as stream:
        write_rows(stream, COLUMNS, rows)
    lines = table_lines(rows)
    with atomic_file(folder / "scores.md", "w", encoding="utf-8") as stream:
        stream.write("\n".join("| " + " | ".join(line) + " |" for line in (lines[0], _rule(lines[0]), *lines[1:])))
        stream.write("\n")
    write_html(folder / "index.html", _TEMPLATE, about=about, head=lines[0], rows=lines[1:])


def _rule(head: Sequence[str]) -> list[str]:
    return ["---"] * len(head)


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a score, a column a network (mean and 95 % interval), and the chance level; the first line is the head."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    found: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["test"], row["measure"], row["condition"]), {})[row["network"]] = row
    lines = [["test", "measure", "condition", *networks, "chance"]]
    for (test, measure, condition), each in found.items():
        first = next(iter(each.values()))
        arrow = "" if first["better"] == "higher" else " (lower is better)"
        cells = [_cell(each.get(name)) for name in networks]
        lines.append([test, measure + arrow, condition, *cells, _number(first["chance"])])
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    if row["low"] is None:
        return _number(row["value"])
    return f"{_number(row['value'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
