"""CheXmask: masks of lungs and heart for the films of other data sets, joined onto a manifest of one of them.

Layout (https://physionet.org/content/chexmask-cxr-segmentation-data), of which one table is used::

    OriginalResolution/ChestX-Ray8.csv, CheXpert.csv, MIMIC-CXR-JPG.csv, Padchest.csv, VinDr-CXR.csv    or .csv.gz

``manifest`` is the prepared manifest of the films. It is taken over with its splits, and gets ``mask_lung_field_left``,
``mask_lung_field_right``, ``mask_heart`` (the patient's left and right; masks that it has are kept) and ``dice_rca``.
HybridGNet learnt lungs from JSRT/SCR, Montgomery and Shenzhen, so they are visible lung fields. Films without a row,
or of a quality below ``min_dice``, stay without masks.

- *Join*: by file name without extension (``Image Index``, ``dicom_id``, ``ImageID``, ``image_id``), or by the last four
  parts of the path (``Path``, CheXpert).
- *Masks*: run lengths ``start length start length ...``, starts counted from 1, row by row. They fit films that were
  resized as a whole; the ``Preprocessed`` masks, of films padded to 1024 x 1024, fit only square ones.
- *Quality*: the mean Dice coefficient of reverse classification accuracy; 0.7 is the authors' threshold. A script of
  theirs stores mean and maximum the wrong way round, so the smaller of both columns counts.
- *Landmarks* (``landmarks``): 44 points of the right lung, 50 of the left, 26 of the heart, in this order.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from cxw_monai.data.schema import Record
from cxw_monai.io.radiograph import RadiographError

from .common import Job, image_size, listed_records
from .made_files import MaskFile, mask_of, write_masks
from .masks import on_grid
from .registry import Option, PublicDataset
from .rle import decode_rle

__all__ = ["DATASET"]

_IDS = ("Image Index", "dicom_id", "ImageID", "image_id", "Path")
_MEAN, _MAX = "Dice RCA (Mean)", "Dice RCA (Max)"
_STRUCTURES = {"Left Lung": "lung_field_left", "Right Lung": "lung_field_right", "Heart": "heart"}
_POINTS = {"lung_right": 44, "lung_left": 50, "heart": 26}
_BATCH = 256  # films whose run lengths are held at a time
_PATH_PARTS = 4  # train/patient00001/study1/view1_frontal


def prepare(
    job: Job, manifest: str = "", table: str = "", min_dice: float = 0.7, landmarks: bool = False
) -> list[Record]:
    """The records of the manifest, with masks; see the module."""
    if not manifest:
        raise ValueError("no manifest: give --manifest, that of the prepared data set whose films get masks")
    records = list(listed_records(Path(manifest)))
    job.about["split"] = f"that of {manifest}"
    source = _table(job, table)
    rows = job.rows(source, (_MEAN, *_STRUCTURES, "Height", "Width"))
    by_key: dict[str, Record] = {}
    found: set[str] = set()
    poor, masks, held = 0, [], 0
    for row in rows:
        column = next((name for name in _IDS if name in row), None)
        if column is None:
            raise ValueError(f"{source}: none of the columns {', '.join(_IDS)}; see {job.url}")
        by_key = by_key or _by_key(records, column == "Path", manifest)
        key = _key(row[column], column == "Path")
        record = by_key.get(key)
        if record is None or key in found:
            continue
        dice = min(float(row[name]) for name in (_MEAN, _MAX) if row.get(name))
        record.extra["dice_rca"] = f"{dice:.4f}"
        found.add(key)
        poor += dice < min_dice
        if dice >= min_dice:
            try:
                masks += _masks(record, row, key.replace("/", "_"), f"{source}, {row[column]}", landmarks)
            except RadiographError as error:
                job.leave_out(error)
            held += 1
        if held == _BATCH:
            write_masks(job, masks)
            masks, held = [], 0
    write_masks(job, masks)
    if not found:
        raise ValueError(f"{source}: none of its films is in {manifest}; give the table of that data set")
    job.note(
        f"{len(found)} of {len(records)} films are in {source.name}, {poor} of them below {min_dice}: without masks"
    )
    return job.kept(records)


def _table(job: Job, name: str) -> Path:
    if name:
        return job.find(name, f"OriginalResolution/{name}")
    tables = [p for f in (job.root, job.root / "OriginalResolution") for p in (*f.glob("*.csv"), *f.glob("*.csv.gz"))]
    if not tables:
        job.find("OriginalResolution")
    if len(tables) != 1:
        names = ", ".join(sorted(path.name for path in tables))
        raise ValueError(f"{job.root}: expected one table, found {names or 'none'}; give --table, such as CheXpert.csv")
    return tables[0]


def _key(name: str, whole: bool) -> str:
    """What a film is joined by: its name without extension, or the end of its path."""
    parts = Path(name).with_suffix("").parts
    return "/".join(parts[-_PATH_PARTS:]) if whole else parts[-1]


def _by_key(records: list[Record], whole: bool, manifest: str) -> dict[str, Record]:
    by_key = {_key(record.image, whole): record for record in records}
    if len(by_key) < len(records):
        raise ValueError(f"{manifest}: films of one name; this table cannot distinguish them")
    return by_key


def _masks(record: Record, row: dict[str, str], name: str, where: str, landmarks: bool) -> list[MaskFile]:
    record.width, record.height = width, height = image_size(record.image)
    shape = int(float(row["Height"])), int(float(row["Width"]))
    masks = []
    for column, structure in _STRUCTURES.items():
        if row[column] and structure not in record.masks:
            make = partial(_make, row[column], shape, width, height, where)
            masks.append(mask_of(record, structure, name, make, f"{row[column]} {shape} {width} {height}"))
    if landmarks:
        _add_landmarks(record, row.get("Landmarks", ""), shape, where)
    return masks


def _make(runs: str, shape: tuple[int, int], width: int, height: int, where: str) -> np.ndarray:
    try:
        return on_grid(decode_rle(runs, *shape, order="rows"), width, height)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; give the table in OriginalResolution") from error


def _add_landmarks(record: Record, text: str, shape: tuple[int, int], where: str) -> None:
    """``landmark_lung_right_01`` and on, in pixels of the stored film."""
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
    if len(numbers) != 2 * sum(_POINTS.values()):
        raise ValueError(f"{where}: {len(numbers)} numbers in Landmarks, expected {2 * sum(_POINTS.values())}")
    points = iter(zip(numbers[::2], numbers[1::2], strict=True))
    scale = (record.width or shape[1]) / shape[1], (record.height or shape[0]) / shape[0]
    for structure, count in _POINTS.items():
        for number in range(1, count + 1):
            x, y = next(points)
            record.landmarks[f"{structure}_{number:02d}"] = (round(x * scale[0], 1), round(y * scale[1], 1))


DATASET = PublicDataset(
    name="chexmask",
    title="CheXmask",
    url="https://physionet.org/content/chexmask-cxr-segmentation-data",
    terms="CC BY 4.0 (the films under their own terms); cite Gaggion et al. 2024",
    split="that of the manifest it is joined onto",
    makes="masks of lung fields and heart made by HybridGNet, their quality, 120 landmarks on request",
    prepare=prepare,
    options=(
        Option("manifest", "", "manifest of the prepared data set whose films get masks"),
        Option("table", "", "the table to use, such as CheXpert.csv, where there are several"),
        Option("min_dice", 0.7, "least quality (Dice RCA) of masks that are taken"),
        Option("landmarks", False, "add the 120 landmarks"),
    ),
)
