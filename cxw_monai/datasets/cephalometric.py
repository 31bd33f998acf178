"""ISBI 2015 cephalometric challenge: 400 lateral films of the skull with 19 landmarks by two readers.

Layout (https://figshare.com/s/37ec464af8e81ae6ebbf)::

    RawImage/TrainingData/001.bmp ... 150, Test1Data/151.bmp ... 300, Test2Data/301.bmp ... 400
    AnnotationsByMD/400_senior/001.txt ..., 400_junior/001.txt ...

An annotation's first 19 lines are ``x,y`` in pixels of 1935 x 2400 (0.1 mm each). A landmark here is the mean of both
readers; their distance is kept in ``reader_distance_mm``, a JSON object. BMP isn't read by this package: such films are
stored again as PNG, with the same grey values. Both published test sets are test, distinguished by ``subset``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from cxw_monai.data.schema import Record

from .common import Job, decoding, index_images
from .made_files import store_films
from .registry import PublicDataset

__all__ = ["DATASET", "LANDMARKS"]

LANDMARKS = (
    *("sella", "nasion", "orbitale", "porion", "subspinale", "supramentale", "pogonion", "menton", "gnathion"),
    "gonion",
    *("incision_inferius", "incision_superius", "upper_lip", "lower_lip", "subnasale", "soft_tissue_pogonion"),
    *("posterior_nasal_spine", "anterior_nasal_spine", "articulare"),
)
"""In the published order, L1 to L19 (Wang et al. 2016)."""

_MM, _WIDTH = 0.1, 1935
_SUBSETS = {"TrainingData": (1, 150), "Test1Data": (151, 300), "Test2Data": (301, 400)}
_EXTENSIONS = (".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


def prepare(job: Job) -> list[Record]:
    """The records of all films; see the module."""
    senior, junior = (job.find(f"AnnotationsByMD/{name}", name) for name in ("400_senior", "400_junior"))
    records = []
    for subset, (first, last) in _SUBSETS.items():
        folder = job.find(f"RawImage/{subset}", subset)
        films = {Path(name).stem: path for name, path in index_images([folder], _EXTENSIONS).items()}
        for number in (f"{n:03d}" for n in range(first, last + 1)):
            record = Record(str(films.get(number, folder / f"{number}.bmp")), number, view="LAT")
            record.split = "training" if subset == "TrainingData" else "test"
            record.extra = {"anatomy": "skull", "subset": subset.removesuffix("Data").lower()}
            records.append(record)
    records = job.sized(job.present(records))
    for record in records:
        scale = record.size[0] / _WIDTH
        record.extra["pixel_spacing_mm"] = f"{_MM / scale:g}"
        both = [_points(folder / f"{record.patient_id}.txt") for folder in (senior, junior)]
        _add_landmarks(record, both[0], both[1], scale)
    bitmaps = [record for record in records if record.image.lower().endswith(".bmp")]
    store_films(job, {f"{Path(record.image).stem}.png": record for record in bitmaps}, _read, "grey")
    records = job.kept(records)
    job.hold_out(records)
    return records


def _points(path: Path) -> list[tuple[float, float]]:
    """The landmarks of one reader, in pixels of 1935 x 2400."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation; it is part of the set published at {DATASET.url}")
    lines = path.read_text(encoding="utf-8-sig").split()[: len(LANDMARKS)]
    try:
        points = [(float(x), float(y)) for x, y in (line.split(",") for line in lines)]
    except ValueError as error:
        raise ValueError(f"{path}: its first {len(LANDMARKS)} lines must be 'x,y'; see {DATASET.url}") from error
    if len(points) != len(LANDMARKS):
        raise ValueError(f"{path}: {len(points)} landmarks, expected {len(LANDMARKS)}; see {DATASET.url}")
    return points


def _add_landmarks(
    record: Record, senior: list[tuple[float, float]], junior: list[tuple[float, float]], scale: float
) -> None:
    distances = {}
    for name, (x1, y1), (x2, y2) in zip(LANDMARKS, senior, junior, strict=True):
        record.landmarks[name] = (round(scale * (x1 + x2) / 2, 2), round(scale * (y1 + y2) / 2, 2))
        distances[name] = round(_MM * math.hypot(x1 - x2, y1 - y2), 2)
    record.extra["reader_distance_mm"] = json.dumps(distances)


def _read(path: Path) -> np.ndarray:
    """uint8 ``[H, W]``."""
    with decoding(path, "cannot be decoded", "copy it again"), Image.open(path, formats=("BMP",)) as image:
        return np.asarray(image.convert("L"))


DATASET = PublicDataset(
    name="cephalometric",
    title="ISBI 2015 cephalometric landmarks",
    url="https://figshare.com/s/37ec464af8e81ae6ebbf",
    terms="research, with citation of Wang et al. 2015 and 2016",
    split="official 150 training, 150 + 100 test films; validation held out of the training films",
    makes="19 landmarks (mean of two readers), distance of the readers, pixel spacing",
    prepare=prepare,
)
