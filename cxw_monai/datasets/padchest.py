"""PadChest: 160,868 films of 67,625 patients with 193 findings and diagnoses from Spanish reports.

Layout (https://bimcv.cipf.es/bimcv-projects/padchest)::

    PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv   or .csv.gz
    0/ ... 54/<ImageID>                                    16-bit PNG, also below images/, or flat in images/

- *Labels* that at least ``min_images`` films have become a column each, 0 where the report doesn't name it; all of a
  film's are in ``findings``. Films whose report says nothing new of the findings (no readable label, or only
  ``unchanged``, ``exclude``, ``suboptimal study``) have none known.
- *Age* is the year of the study less that of birth. No date is copied; ``study`` is a hash, as a study's published
  number can hold its time.
- *Bone bright.* ``source_photometric`` is the original DICOM's; whether the conversion to PNG has undone MONOCHROME1
  isn't documented. So it is measured: 32 x 32 thumbnails of films so tagged are correlated with the mean one of the
  others. Where they are negatives they are stored again, inverted. ``monochrome1`` decides it instead.
- *Left out*: films that are damaged in the release, and those whose projection is EXCLUDE.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cxw_monai.data.schema import Record

from .common import Job, decoding, sex_letter, view_name
from .made_files import store_films
from .registry import Option, PublicDataset

__all__ = ["DATASET"]

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM")
_MORE = ("Projection", "PhotometricInterpretation_DICOM", "MethodLabel", "Labels")
_VIEWS = {"AP_HORIZONTAL": "AP", "AP_VERTICAL": "AP"}
_NOTHING_NEW = {"unchanged", "exclude", "suboptimal study"}
_SAMPLE, _THUMBNAIL, _CLEAR = 64, 32, 0.2  # films, pixels, correlation

_DAMAGED = frozenset(
    f"2168401113669640{rest}.png"
    for rest in (
        *("12819207061112010307142602253_04-014-084", "12989926673512011074122523403_00-163-058"),
        *("12959786098432011033083840143_00-176-115", "12558082906712009327122220177_00-102-064"),
        *("12339356563862009072111404053_00-043-192", "13076187734852011291090445391_00-196-188"),
        *("12373310883942009117084022290_00-064-025", "12283393834152009033102258826_00-059-087"),
        *("12373310883942009170084120009_00-097-074", "12819207061112010315104455352_04-024-184"),
        *("12819207061112010306085429121_04-020-102", "12989926673512011083134050913_00-168-009"),
        *("12373310883942009152114636712_00-102-045", "12819207061112010281134410801_00-129-131"),
        *("12487858717522009280135853083_00-075-001", "12989926673512011151082430686_00-157-045"),
        *("13686042548532013208193054515_02-026-007", "13590140476722013058110301622_02-056-111"),
        *("13590140476722013043111952381_02-065-198", "13829543166512013353113303615_02-092-190"),
        "13962490064942014134093945580_01-178-104",
    )
)
"""Truncated or unreadable in the release, as listed by TorchXRayVision (https://github.com/mlmed/torchxrayvision)."""


def prepare(job: Job, frontal_only: bool = False, min_images: int = 1000, monochrome1: str = "measure") -> list[Record]:
    """The records of all usable films; see the module."""
    table = job.find(_TABLE, f"{_TABLE}.gz")
    base = job.root / "images" if (job.root / "images").is_dir() else job.root
    folders: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    records = []
    for row in job.rows(table, (*_COLUMNS, *_MORE)):
        view = view_name(row["Projection"])
        view = _VIEWS.get(view or "", view)
        if row["ImageID"] in _DAMAGED or view == "EXCLUDE" or (frontal_only and view not in ("PA", "AP")):
            left_out["damaged" if row["ImageID"] in _DAMAGED else f"projection {row['Projection']}"] += 1
            continue
        if row["ImageDir"] not in folders:
            folder = base / row["ImageDir"]
            folders[row["ImageDir"]] = folder if folder.is_dir() else base
        records.append(_record(row, folders[row["ImageDir"]] / row["ImageID"], view))
    for reason, count in sorted(left_out.items()):
        job.note(f"{count} films left out: {reason}")
    records = job.present(records)
    records = _turn_bright(job, records, monochrome1)
    _add_labels(job, records, min_images)
    job.split(records)
    return records


def _record(row: dict[str, str], image: Path, view: str | None) -> Record:
    born, study = row["PatientBirth"].split(".")[0], row["StudyDate_DICOM"][:4]
    age = int(study) - int(born) if born.isdigit() and study.isdigit() else None
    try:
        labels = ast.literal_eval(row["Labels"])
        names = {label.strip().lower() for label in labels if isinstance(label, str)} - {""}
    except (ValueError, SyntaxError, TypeError):  # empty, nan, or a damaged list: none of its labels is known
        names = set()
    return Record(
        image=str(image),
        patient_id=row["PatientID"],
        study=hashlib.sha256(row["StudyID"].encode()).hexdigest()[:16],
        sex=sex_letter(row["PatientSex_DICOM"]),
        age=age if age is not None and 0 <= age <= 120 else None,
        view=view,
        extra={
            "findings": "|".join(sorted(names)),
            "labelled_by": row["MethodLabel"],
            "projection": row["Projection"],
            "source_photometric": row["PhotometricInterpretation_DICOM"],
        },
    )


def _add_labels(job: Job, records: Sequence[Record], min_images: int) -> None:
    findings = [set(record.extra["findings"].split("|")) - {""} for record in records]
    counts = Counter(name for names in findings for name in names - _NOTHING_NEW)
    frequent = sorted(name for name, count in counts.items() if count >= min_images)
    unknown = 0
    for record, names in zip(records, findings, strict=True):
        if names <= _NOTHING_NEW:
            unknown += 1
        else:
            record.labels = {name.replace(" ", "_"): int(name in names) for name in frequent}
    job.note(f"{len(frequent)} of {len(counts)} labels are on at least {min_images} films and have a column")
    if unknown:
        job.note(f"{unknown} films whose report says nothing new of the findings: labels unknown")


def _turn_bright(job: Job, records: list[Record], choice: str) -> list[Record]:
    """Stores films tagged MONOCHROME1 again where bone is dark; the records without the films that proved damaged."""
    tagged = [record for record in records if record.extra["source_photometric"] == "MONOCHROME1"]
    if not tagged:
        return records
    if choice == "measure":
        others = [record for record in records if record.extra["source_photometric"] != "MONOCHROME1"]
        while (likeness := _likeness(job, tagged, others)) is None:
            tagged, others = job.kept(tagged), job.kept(others)
            if not tagged:
                return job.kept(records)
        if abs(likeness) < _CLEAR:
            reason = f"MONOCHROME1 films are neither like the others nor their negatives (correlation {likeness:.2f})"
            raise ValueError(f"{job.root}: {reason}; look at some and give --monochrome1 keep or invert")
        job.note(f"correlation of MONOCHROME1 films with the mean of the others: {likeness:.2f}")
        choice = "invert" if likeness < 0 else "keep"
    job.note(f"{len(tagged)} films tagged MONOCHROME1: {'inverted' if choice == 'invert' else 'kept as they are'}")
    if choice == "invert":
        store_films(job, {Path(record.image).name: record for record in tagged}, _inverted, "inverted")
    return job.kept(records)


def _likeness(job: Job, tagged: list[Record], others: list[Record]) -> float | None:
    """Median correlation of the tagged films with the mean other film, of the view most frequent among the former; None
    where all of them that were looked at are damaged."""
    view = Counter(record.view for record in tagged).most_common(1)[0][0]
    samples = []
    for records in (tagged, others):
        same = [record for record in records if record.view == view]
        chosen = same[:: max(1, len(same) // _SAMPLE)][:_SAMPLE]
        samples.append(np.array([found for _, found in job.readable(chosen, _thumbnail, "polarity")]))
    if not len(samples[0]):
        return None
    if not len(samples[1]):
        return 0.0
    mean = samples[1].mean(axis=0)  # [n, 1024] -> [1024]
    return float(np.median(samples[0] @ mean) / np.linalg.norm(mean))


def _thumbnail(record: Record) -> np.ndarray:
    """``[1024]`` of mean 0 and norm 1."""
    small = Image.fromarray(_read(Path(record.image)).astype(np.float32))
    values = np.asarray(small.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.float64).ravel()
    values = values - values.mean()
    return values / max(np.linalg.norm(values), 1e-9)


def _inverted(path: Path) -> np.ndarray:
    return np.uint16(65535) - _read(path)


def _read(path: Path) -> np.ndarray:
    """uint16 ``[H, W]``."""
    remedy = f"download it again from {DATASET.url}"
    with decoding(path, "cannot be decoded, damaged or truncated", remedy), Image.open(path, formats=("PNG",)) as image:
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.uint16)
        return np.asarray(image.convert("L")).astype(np.uint16) * 257


DATASET = PublicDataset(
    name="padchest",
    title="PadChest",
    url="https://bimcv.cipf.es/bimcv-projects/padchest",
    terms="research use agreement of BIMCV; cite Bustos et al. 2020",
    split="no official one: seeded, by patient",
    makes="0/1 of each frequent finding and diagnosis, view, sex, age",
    prepare=prepare,
    options=(
        Option("frontal_only", False, "leave out lateral and costal films"),
        Option("min_images", 1000, "films that a label must be on to get a column"),
        Option("monochrome1", "measure", "what to do with films so tagged", ("measure", "keep", "invert")),
    ),
)
