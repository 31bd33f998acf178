"""From a published folder to ``manifest.csv``, ``datalist.json``, ``summary.json`` and masks."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxw_monai.data.manifest import write_csv, write_datalist
from cxw_monai.data.schema import SPLITS, Record
from cxw_monai.data.validation import validate
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.files.json_files import read_json
from cxw_monai.io.radiograph import RadiographError
from cxw_monai.io.results.folders import LOCK, output_lock

from .common import Job, LeftOut
from .registry import PublicDataset, datasets

__all__ = ["format_counts", "prepare_dataset", "summarise"]

_SUMMARY, _LEFT_OUT = "summary.json", "left_out.csv"
_LISTED = 30  # structures or landmarks that the text names singly


def prepare_dataset(
    name: str,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    validation: float = 0.1,
    test: float = 0.2,
    allow_missing: bool = False,
    relative: bool = False,
    workers: int = 8,
    progress: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Prepare one public data set.

    ``out`` gets ``manifest.csv`` and ``datalist.json`` (:mod:`cxw_monai.data.schema`), ``summary.json``,
    ``left_out.csv`` and the masks that had to be made. ``root`` is only read. Safe to run again: whole masks are kept,
    the other files replaced. Damaged films and masks are left out and listed in ``left_out.csv``, as are missing films
    with ``allow_missing``.

    Images stay where they are, and are listed by absolute path; what was made here (masks, films stored again) by its
    path below ``out``. So the manifest holds while the images stay in place, wherever ``out`` goes.

    Args:
        name: one of :func:`datasets`.
        root: the folder as it was downloaded and unpacked.
        out: the output folder, neither in ``root`` nor around it.
        seed: of splits made here.
        validation: share of the training patients held out where there is no official validation split.
        test: share of all patients held out where there is no official test split.
        allow_missing: leave out what wasn't downloaded, and count it, instead of stopping.
        relative: list images by their path from ``out``, so that both folders can be moved together.
        workers: threads.
        progress: show progress bars.
        **options: the data set's own.

    Returns:
        The summary: counts per split, label, sex and view, what was left out, and what was decided on the way.

    Raises:
        ValueError: an unknown name, a folder that can't be used, a file of another layout, invalid records, more
            damaged films than whole ones, or another run is writing there (OutputBusyError).
        FileNotFoundError: files of the set are missing; the first are named.
    """
    known = datasets()
    if name not in known:
        raise ValueError(f"no data set {name!r}; one of {', '.join(known)}")
    dataset = known[name]
    chosen = _checked(dataset, options)
    root, out = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    _check_folders(root, out, name)
    job = Job(root, out, dataset.url, seed, validation, test, allow_missing, workers, progress)
    with output_lock(out):
        return _prepared(job, dataset, chosen, relative)


def _prepared(job: Job, dataset: PublicDataset, chosen: dict[str, Any], relative: bool) -> dict[str, Any]:
    """Write what :func:`prepare_dataset` makes; its summary."""
    root, out, name = job.root, job.out, dataset.name
    with _claimed(out, name):
        records = job.kept(job.present(list(dataset.prepare(job, **chosen))))
        _leave_out_unwritable(job, records)
        records = job.kept(records)
        job.refuse_ruin(records)
        if not records:
            raise ValueError(f"{root}: no image of {dataset.title} is left; is it what {dataset.url} publishes?")
        _set_paths(records, out, relative)
        validate(records, base_dir=out, what=str(root))
    left_out = Counter(each.what for each in job.left_out)
    filled = {record.split for record in records}
    empty = [f"no film is in the split {split}" for split in SPLITS if split not in filled]
    summary = {
        "dataset": name,
        "complete": True,
        "title": dataset.title,
        **{fact: job.about.get(fact, getattr(dataset, fact)) for fact in ("url", "terms", "split")},
        "settings": {"seed": job.seed, "validation": job.validation, "test": job.test, "relative": relative} | chosen,
        "missing_images": left_out["missing film"],
        "left_out": {"films": left_out["film"], "masks": left_out["mask"]},
        "notes": [*job.notes, *empty],
        "counts": summarise(records),
    }
    write_csv(out / "manifest.csv", records)
    write_datalist(out / "datalist.json", records, name)
    with atomic_file(out / _LEFT_OUT, "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, LeftOut._fields, [each._asdict() for each in job.left_out])
    _write_summary(out, summary)
    return summary


def _leave_out_unwritable(job: Job, records: Sequence[Record]) -> None:
    """Films whose name can't be in a UTF-8 manifest."""
    for record in records:
        try:
            record.image.encode()
        except UnicodeEncodeError:
            job.leave_out(RadiographError(record.image, "its name is not UTF-8", "rename it"))


def _write_summary(out: Path, summary: dict[str, Any]) -> None:
    with atomic_file(out / _SUMMARY, "w", encoding="utf-8") as stream:
        json.dump(summary, stream, indent=1)


@contextmanager
def _claimed(out: Path, name: str) -> Iterator[None]:
    """Says whose folder it is before the first mask is written, so that a killed run can be resumed; a failed run that
    made nothing leaves nothing."""
    new = not (out / _SUMMARY).exists()
    if new:
        _write_summary(out, {"dataset": name, "complete": False})
    try:
        yield
    except BaseException:
        if new and set(os.listdir(out)) == {_SUMMARY, LOCK}:
            shutil.rmtree(out)
        raise


def _checked(dataset: PublicDataset, options: dict[str, Any]) -> dict[str, Any]:
    """The data set's options, with the defaults of those that aren't given."""
    chosen = {option.name: option.default for option in dataset.options} | options
    for option in dataset.options:
        if option.choices and chosen[option.name] not in option.choices:
            allowed = ", ".join(map(repr, option.choices))
            raise ValueError(f"{option.name} must be one of {allowed}, got {chosen[option.name]!r}")
    unknown = options.keys() - {option.name for option in dataset.options}
    if unknown:
        raise ValueError(f"{dataset.name} has no option {sorted(unknown)[0]!r}")
    return chosen


def _check_folders(root: Path, out: Path, name: str) -> None:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the one that the data set was unpacked to")
    real_root, real_out = Path(os.path.realpath(root)), Path(os.path.realpath(out))
    if real_out == real_root or real_root in real_out.parents or real_out in real_root.parents:
        raise ValueError(f"{out}: the output folder must not be in {root}, nor around it; give another one")
    if not out.exists() or not set(os.listdir(out)) - {LOCK}:
        return
    if not (out / _SUMMARY).is_file():
        raise ValueError(f"{out}: holds other files; give a new folder, or one that this data set was prepared in")
    summary = read_json(out / _SUMMARY)
    before = summary.get("dataset") if isinstance(summary, dict) else None
    if before != name:
        raise ValueError(f"{out}: holds the data set {before!r}; give another folder for {name!r}")


def _set_paths(records: Sequence[Record], out: Path, relative: bool) -> None:
    """Paths from ``out`` for what is in it, and with ``relative`` for all; else absolute ones."""
    for record in records:
        record.image = _path(record.image, out, relative)
        record.masks = {structure: _path(path, out, relative) for structure, path in record.masks.items()}


def _path(path: str, out: Path, relative: bool) -> str:
    whole = os.path.normpath(os.path.join(out, path))
    return Path(os.path.relpath(whole, out)).as_posix() if relative or whole.startswith(f"{out}{os.sep}") else whole


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Counts of a data set.

    Returns:
        Per split: ``images``, ``patients`` (None where none is named), ``sex``, ``view``, ``boxes`` (images with any),
        ``masks`` and ``landmarks`` (images that have them), and ``labels``: of a 0/1 label how many images are 0 and
        1, of a measurement how many have one.
    """
    counts = {}
    for split in (*SPLITS, None):
        members = [record for record in records if record.split == split]
        if not members:
            continue
        patients = {record.patient_id for record in members if record.patient_id}
        counts[split or "unassigned"] = {
            "images": len(members),
            "patients": len(patients) or None,
            "sex": dict(sorted(Counter(record.sex or "unknown" for record in members).items())),
            "view": dict(sorted(Counter(record.view or "unknown" for record in members).items())),
            "boxes": sum(bool(record.boxes) for record in members),
            "masks": dict(Counter(structure for record in members for structure in record.masks)),
            "landmarks": dict(Counter(name for record in members for name in record.landmarks)),
            "labels": _label_counts(members),
        }
    return counts


def _label_counts(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    values: dict[str, Counter[float]] = {}
    for record in records:
        for name, value in record.labels.items():
            values.setdefault(name, Counter())[value] += 1
    return {
        name: {str(int(value)): n for value, n in sorted(counter.items())}
        if set(counter) <= {0, 1}
        else {"values": counter.total()}
        for name, counter in values.items()
    }


def format_counts(summary: dict[str, Any]) -> str:
    """The summary of :func:`prepare_dataset` as text: a table of counts with a column per split, the notes, and in the
    last line, where anything was, what was left out."""
    counts = summary["counts"]
    rows = [["", *counts], ["images", *(str(c["images"]) for c in counts.values())]]
    rows.append(["patients", *("-" if c["patients"] is None else str(c["patients"]) for c in counts.values())])
    for kind in ("sex", "view"):
        for value in sorted({value for c in counts.values() for value in c[kind]}):
            rows.append([f"{kind} {value}", *(str(c[kind].get(value, 0)) for c in counts.values())])
    rows.append(["with boxes", *(str(c["boxes"]) for c in counts.values())])
    for kind in ("masks", "landmarks"):
        names = dict.fromkeys(name for c in counts.values() for name in c[kind])
        if len(names) > _LISTED:
            rows.append([f"{len(names)} {kind}", *(str(max(c[kind].values(), default=0)) for c in counts.values())])
        else:
            rows += [[f"{kind[:-1]} {name}", *(str(c[kind].get(name, 0)) for c in counts.values())] for name in names]
    for name in dict.fromkeys(name for c in counts.values() for name in c["labels"]):
        rows.append([f"label {name}", *(_label_text(c["labels"].get(name, {})) for c in counts.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if summary["missing_images"]:
        lines.append(f"note: {summary['missing_images']} listed images aren't there: left out")
    notes = [f"note: {note}" for note in summary["notes"]]
    return "\n".join([f"{summary['title']} ({summary['split']})", *lines, *notes, *_damaged(summary)])


def _damaged(summary: dict[str, Any]) -> list[str]:
    """The last line, where something was damaged."""
    found = {what: count for what, count in summary.get("left_out", {}).items() if count}
    counted = " and ".join(f"{count} {what if count > 1 else what[:-1]}" for what, count in found.items())
    return [f"left out: {counted} that can't be read; see {_LEFT_OUT}"] if counted else []


def _label_text(counts: dict[str, int]) -> str:
    """``5 of 20`` for a 0/1 label, ``20 values`` for a measurement."""
    if "values" in counts:
        return f"{counts['values']} values"
    return f"{counts.get('1', 0)} of {sum(counts.values())}" if counts else "-"
