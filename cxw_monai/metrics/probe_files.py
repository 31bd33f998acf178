"""Frozen probes of embedding files and encoders for the labels of a manifest, as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np

from cxw_monai.data.manifest import read_datalist

from .descriptors import Descriptors, encoder_descriptors, load_descriptors, pixel_descriptors
from .probes import READINGS, ProbeSettings, plain_value, probe

__all__ = ["Films", "format_results", "probe_files", "read_films"]

AnyPath = str | PathLike[str]
Row = dict[str, Any]

_SHOWN = 3  # images or values named in a message


@dataclass(frozen=True)
class Films:
    """Films with labels, and which of them a probe is fitted on.

    Attributes:
        rows: manifest rows by absolute path.
        train: whether to fit on an image, by path; None for cross-validation over all of them.
        source: the manifests, for messages.
        left_out: images that aren't fitted on since their patient is tested.
    """

    rows: dict[str, Row]
    train: dict[str, bool] | None
    source: str
    left_out: int = 0


def read_films(
    datalist: AnyPath, test_datalist: AnyPath | None = None, train_on: Sequence[str] = (), test_on: Sequence[str] = ()
) -> Films:
    """Films of one or two manifests.

    Args:
        datalist: manifest with ``image``, ``patient_id`` and labels.
        test_datalist: a second one, whose films are tested on; then those of the first are fitted on.
        train_on: values of the column ``split`` that are fitted on; none for all films of ``datalist``.
        test_on: values of the column ``split`` that are tested on; none for all films of ``test_datalist``.

    Raises:
        ValueError: an image that is there twice, one of the two parts only, or a part without films.
        FileNotFoundError: a missing manifest or image.
    """
    rows = _rows(datalist)
    if test_datalist is None and not train_on and not test_on:
        return Films(rows, None, str(datalist))
    if test_datalist is None and not (train_on and test_on):
        raise ValueError("give splits to train on and splits to test on, or a second manifest to test on")
    tested_from = rows if test_datalist is None else _rows(test_datalist)
    source = str(datalist) if test_datalist is None else f"{datalist} and {test_datalist}"
    fitted = {image: row for image, row in rows.items() if not train_on or row.get("split") in train_on}
    tested = {image: row for image, row in tested_from.items() if not test_on or row.get("split") in test_on}
    for part, found, wanted, where in (
        ("train", fitted, train_on, datalist),
        ("test", tested, test_on, test_datalist or datalist),
    ):
        if not found:
            there = sorted({str(row.get("split")) for row in _rows(where).values()})
            raise ValueError(f"{where}: no film to {part} on with split {' or '.join(wanted)}; there are {there}")
    if both := sorted(set(fitted) & set(tested)):
        raise ValueError(f"{source}: {len(both)} films are to be trained and tested on, such as {both[0]}")
    patients = {_patient_of(row) for row in tested.values()}
    kept = {image: row for image, row in fitted.items() if _patient_of(row) not in patients}
    train = dict.fromkeys(kept, True) | dict.fromkeys(tested, False)
    return Films(kept | tested, train, source, len(fitted) - len(kept))


def _rows(datalist: AnyPath) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for item in read_datalist(datalist, section="all"):
        if item["image"] in rows:
            raise ValueError(f"{datalist}: image {item['image']} is there more than once")
        rows[item["image"]] = item
    return rows


def _patient_of(row: Row) -> tuple[str, str]:
    patient = plain_value(row.get("patient_id"))
    return ("image", row["image"]) if patient is None else ("patient", patient)


def probe_files(
    embeddings: Sequence[AnyPath],
    films: Films,
    labels: Sequence[str],
    settings: ProbeSettings | None = None,
    *,
    encoders: Sequence[AnyPath] = (),
    random: int = 0,
    pixels: int | None = None,
    tokens: bool = False,
    readings: Sequence[str] = ("mean",),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Probe embedding files, encoders and baselines for the labels of a manifest.

    An image without ``patient_id`` counts as a patient of its own, and is counted in the report.

    Args:
        embeddings: ``.npz`` files (see :func:`load_descriptors`), each with some or all of the films. One that is
            followed by others of the same encoder is given as a text with commas: ``train.npz,test.npz``.
        films: what is probed.
        labels: columns to probe for.
        settings: of the probes.
        encoders: files of encoders that the films are shown to.
        random: add the first encoder's network with random weights so many times (seeds 0, 1, ...).
        pixels: add the films shrunk to this many pixels a side.
        tokens: add a row per embedding file for its patch tokens (mean and standard deviation per channel).
        readings: ways to read, see :data:`~cxw_monai.metrics.probes.READINGS`; all but ``mean`` need patch tokens.
        progress: called with a line before each probe.

    Returns:
        ``{"datalist", "settings", "descriptors": [...], "results": [...]}`` of JSON types, a result a descriptor,
        reading and label with the fields of :class:`ProbeResult`.

    Raises:
        ValueError: nothing to probe, a malformed file, an image that the manifest lacks, or a label that is no column.
        FileNotFoundError: a missing file.
        CheckpointError: an encoder can't be used.
    """
    settings = settings or ProbeSettings()
    if not (embeddings or encoders or pixels is not None):
        raise ValueError("nothing to probe: give embeddings, an encoder or pixels")
    if random and not encoders:
        raise ValueError("random weights need an encoder, whose network they are of")
    if unknown := [name for name in readings if name not in READINGS]:
        raise ValueError(f"readings must be some of {', '.join(READINGS)}, got {unknown[0]!r}")
    columns = {name for row in films.rows.values() for name in row}
    for label in labels:
        if label not in columns:
            raise ValueError(f"{films.source}: no column {label!r} among {sorted(columns)}")
    summaries, results = [], []
    patches = set(readings) != {"mean"}
    for each in _described(embeddings, films, encoders, random, pixels, tokens, patches):
        rows = _rows_of(each, films)
        patients = [_patient_of(row) for row in rows]
        train = None if films.train is None else np.array([films.train[image] for image in each.images])
        summaries.append(
            {
                "name": each.name,
                "images": len(rows),
                "dimensions": each.values.shape[1],
                "images_without_patient_id": sum(kind == "image" for kind, _ in patients),
                "manifest_rows_without_embedding": len(films.rows) - len(rows),
            }
        )
        for reading in readings:
            if reading != "mean" and each.tokens is None:
                continue  # of an embedding file's own tokens, which are a vector already
            for label in labels:
                if progress is not None:
                    progress(f"{each.name}, {reading}: {label}")
                values = [row.get(label) for row in rows]
                found = probe(
                    each.values, values, patients, settings, each.name, label,
                    train=train, reading=reading, tokens=each.tokens,
                )  # fmt: skip
                results.append(asdict(found))
    report = {
        "datalist": films.source,
        "settings": asdict(settings),
        "descriptors": summaries,
        "results": results,
        "training_images_left_out": films.left_out,
    }
    return json.loads(json.dumps(report))  # tuples become lists, as a reader of the file sees them


def _described(
    embeddings: Sequence[AnyPath],
    films: Films,
    encoders: Sequence[AnyPath],
    random: int,
    pixels: int | None,
    tokens: bool,
    patches: bool,
) -> list[Descriptors]:
    """Everything that is probed, in the table's order."""
    found = []
    for paths in embeddings:
        for kind in (False, True) if tokens else (False,):
            parts = [load_descriptors(path, kind, patches and not kind) for path in str(paths).split(",")]
            found.append(_joined(parts, films))
    images = found[0].images if found else list(films.rows)
    for path in encoders:
        found.append(encoder_descriptors(path, images))
    for seed in range(random):
        found.append(encoder_descriptors(encoders[0], images, random_seed=seed))
    if pixels is not None:
        found.append(pixel_descriptors(images, pixels))
    return found


def _joined(parts: Sequence[Descriptors], films: Films) -> Descriptors:
    """Several files of one encoder as one; with parts to train and test on, other films are dropped.

    Raises:
        ValueError: they don't fit together.
    """
    name = " and ".join(part.name for part in parts)
    images = [image for part in parts for image in part.images]
    if len(set(images)) != len(images):
        raise ValueError(f"{name}: an image is there more than once")
    if len({part.values.shape[1] for part in parts}) > 1:
        raise ValueError(f"{name}: of different lengths, {[part.values.shape[1] for part in parts]}; one encoder's?")
    values = np.concatenate([part.values for part in parts])
    grids = [part.tokens for part in parts if part.tokens is not None]
    grid = np.concatenate(grids) if grids else None
    if films.train is None:
        return Descriptors(name, images, values, grid)
    kept = [place for place, image in enumerate(images) if image in films.rows]
    if not kept:
        raise ValueError(f"{name}: none of the {len(images)} images is in {films.source}; they are matched by path")
    return Descriptors(name, [images[i] for i in kept], values[kept], None if grid is None else grid[kept])


def _rows_of(descriptors: Descriptors, films: Films) -> list[Row]:
    """The manifest's rows of the images, in their order."""
    unmatched = [image for image in descriptors.images if image not in films.rows]
    if unmatched:
        shown = ", ".join(unmatched[:_SHOWN]) + (", ..." if len(unmatched) > _SHOWN else "")
        raise ValueError(
            f"{descriptors.name}: {len(unmatched)} of {len(descriptors.images)} images are not in {films.source} "
            f"({shown}); give the manifest that the embeddings were made from, images are matched by absolute path"
        )
    return [films.rows[image] for image in descriptors.images]


def format_results(results: Sequence[dict[str, Any]]) -> str:
    """A table of the results of :func:`probe_files`, one row a descriptor, reading and label, and their means."""
    lines = [("descriptor", "reading", "label", "AUROC [95 % interval]", "n", "patients", "positive", "missing")]
    for r in results:
        value = f"not computable: {r['reason']}"
        if r["auroc"] is not None:
            value = f"{r['auroc']:.3f}" + ("" if r["low"] is None else f" [{r['low']:.3f}, {r['high']:.3f}]")
        positive = "-" if r["positive"] is None else f"{r['counts'][r['positive']]} {r['positive']}"
        counts = [str(number) for number in (sum(r["counts"].values()), r["patients"])]
        lines.append((r["descriptor"], r["reading"], r["label"], value, *counts, positive, str(r["missing"])))
    for name, reading in dict.fromkeys((r["descriptor"], r["reading"]) for r in results):
        found = [r["auroc"] for r in results if (r["descriptor"], r["reading"]) == (name, reading)]
        if len(found) > 1 and None not in found:
            lines.append((name, reading, f"mean of {len(found)}", f"{np.mean(found):.3f}", "", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
