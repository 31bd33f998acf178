"""JSRT database: 247 digitised frontal films, 154 with one lung nodule; SCR outlines of lungs, heart and clavicles.

Layout (http://db.jsrt.or.jp/eng.php for films and clinical data, https://www.isi.uu.nl/Research/Databases/SCR)::

    All247images/JPCLN001.IMG ... JPCLN154.IMG, JPCNN001.IMG ... JPCNN093.IMG    or PNG conversions, anywhere
    Clinical_Information/CLNDAT_EN.txt, CNNDAT_EN.TXT                            optional
    scratch/fold1/masks/left lung/JPCLN001.gif ...                               optional (SCR)

An IMG is raw: 2048 x 2048 big-endian 16-bit words of 12 bits, bone *low*. It is stored here as a 16-bit PNG with bone
bright: ``(4095 - value) / 4095`` of the full range. A PNG conversion is taken as it is, to be bone bright; say so with
``png_bone_dark`` where it isn't.

SCR's masks are 1024 x 1024; each pixel of the film takes the mask's pixel below its centre. Their left and right are
the patient's; its lungs are visible lung fields, ``lung_field_left`` and ``lung_field_right``. SCR's two folds are odd
and even film numbers; ``test_fold`` says which is tested on, and the validation films are held out of the other. A
nodule's box is a square of its published size around its published centre; size, centre and spacing (0.175 mm) belong
to 2048 x 2048 pixels and are scaled to a conversion's size.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from cxw_monai.data.schema import Box, Record
from cxw_monai.io.radiograph import RadiographError

from .common import Job, decoding
from .made_files import store_films, stored_mask_of, write_masks
from .registry import Option, PublicDataset

__all__ = ["DATASET"]

_SIDE, _LARGEST, _MM = 2048, 4095, 0.175
_NAMES = [f"JPC{kind}N{number:03d}" for kind, count in (("L", 154), ("N", 93)) for number in range(1, count + 1)]
_CLINICAL = re.compile(r"(JPC[LN]N\d{3})\.IMG", re.IGNORECASE)
_STRUCTURES = {
    **{"heart": "heart", "left lung": "lung_field_left", "right lung": "lung_field_right"},
    **{"left clavicle": "clavicle_left", "right clavicle": "clavicle_right"},
}


def prepare(job: Job, test_fold: int = 2, png_bone_dark: bool = False) -> list[Record]:
    """The records of all films; see the module."""
    files: dict[str, Path] = {}
    for extension in (".img", ".png"):  # raw films are preferred to conversions
        for path in sorted(path for path in job.root.rglob("JPC?N???.*") if path.suffix.lower() == extension):
            files.setdefault(path.stem.upper(), path)
    records = []
    for name in _NAMES:
        record = Record(str(files.get(name, job.root / "All247images" / f"{name}.IMG")), name, view="PA")
        record.labels["nodule"] = int(name[3] == "L")
        record.split = "test" if (int(name[5:]) % 2 == 1) == (test_fold == 1) else "training"
        record.extra["fold"] = "1" if int(name[5:]) % 2 else "2"
        records.append(record)
    records = job.sized(job.present(records), lambda record: not record.image.lower().endswith(".img"))
    raw: dict[str, Record] = {}
    dark: dict[str, Record] = {}
    for record in records:
        record.width, record.height = record.width or _SIDE, record.height or _SIDE
        record.extra["pixel_spacing_mm"] = f"{_MM * _SIDE / record.width:g}"
        kind = raw if record.image.lower().endswith(".img") else dark
        kind[f"{record.patient_id}.png"] = record
    _add_clinical(job, records)
    _add_masks(job, records)
    store_films(job, raw, _read_raw, "raw 12 bits inverted")
    if png_bone_dark:
        store_films(job, dark, _read_dark, "inverted")
    records = job.kept(records)
    job.about["split"] = f"SCR's folds: fold {test_fold} is the test; validation held out of the other fold"
    job.hold_out(records)
    return records


def _read_raw(path: Path) -> np.ndarray:
    """An IMG as uint16 ``[2048, 2048]``, bone bright, of the full 16 bits."""
    try:
        values = np.fromfile(path, ">u2")
    except OSError as error:
        raise RadiographError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    if values.size != _SIDE * _SIDE or values.max() > _LARGEST:
        reason = f"not {_SIDE} x {_SIDE} big-endian 16-bit words of 12 bits"
        raise RadiographError(path, reason, f"copy it again from {DATASET.url}")
    bright = _LARGEST - values.reshape(_SIDE, _SIDE).astype(np.float64)
    return np.round(bright * (65535 / _LARGEST)).astype(np.uint16)


def _read_dark(path: Path) -> np.ndarray:
    """A conversion with bone dark, inverted in its own depth."""
    with decoding(path, "cannot be decoded", "convert it again"), Image.open(path) as image:
        if image.mode.startswith("I"):
            return np.uint16(65535) - np.asarray(image).astype(np.uint16)
        return np.uint8(255) - np.asarray(image.convert("L"))


def _add_clinical(job: Job, records: list[Record]) -> None:
    """Sex, age, and where and what the nodules are."""
    texts: dict[str, list[str]] = {}
    for path in (path for path in job.root.rglob("C?NDAT_EN.*") if path.suffix.lower() == ".txt"):
        parts = _CLINICAL.split(path.read_text(encoding="latin-1"))
        films = zip(parts[1::2], parts[2::2], strict=True)
        texts |= {name.upper(): re.split(r"[\s,]+", rest.strip(" \t,")) for name, rest in films}
    if not texts:
        job.note("no CLNDAT_EN.txt or CNNDAT_EN.txt: sex, age and place of the nodules are not known")
        return
    for record in records:
        name = str(record.patient_id)
        if name not in texts:
            raise ValueError(f"{job.root}: {name} is not in the clinical data (C?NDAT_EN.txt); see {job.url}")
        try:
            _describe(record, texts[name])
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{job.root}: cannot read the clinical data of {name} ({error}); see {job.url}") from error


def _describe(record: Record, words: list[str]) -> None:
    """Fills in ``subtlety size age sex x y malignancy ...`` of a nodule, ``age sex ...`` of a film without."""
    age, sex = words[2:4] if record.labels["nodule"] else words[:2]
    record.age = int(age) if age != "?" else None
    record.sex = {"male": "M", "female": "F"}.get(sex.lower())
    record.boxes = []
    if record.labels["nodule"]:
        subtlety, size, x, y = (float(words[i]) for i in (0, 1, 4, 5))
        malignant = {"malignant": 1, "benign": 0}[words[6].lower()]
        record.labels |= {"malignant": malignant, "nodule_subtlety": subtlety, "nodule_size_mm": size}
        record.boxes = [_square(x, y, size / _MM, record.width or _SIDE, record.height or _SIDE)]


def _square(x: float, y: float, side: float, width: int, height: int) -> Box:
    """The nodule's box, of 2048 x 2048 pixels, on the stored film and cut off at its edges."""
    scale = (width / _SIDE, height / _SIDE)
    low = [max(0.0, (centre - side / 2) * s) for centre, s in zip((x, y), scale, strict=True)]
    high = [min(n, (centre + side / 2) * s) for centre, s, n in zip((x, y), scale, (width, height), strict=True)]
    return Box("nodule", *(round(value, 1) for value in (*low, high[0] - low[0], high[1] - low[1])))


def _add_masks(job: Job, records: list[Record]) -> None:
    folders = sorted(job.root.rglob("fold[12]/masks"))
    if not folders:
        job.note("no fold1/masks, fold2/masks (SCR): no masks")
        return
    masks = []
    for record in records:
        for folder, structure in _STRUCTURES.items():
            paths = (base / folder / f"{record.patient_id}.gif" for base in folders)
            source = next((path for path in paths if path.is_file()), None)
            if source is None:
                wanted = f"fold{record.extra['fold']}/masks/{folder}/{record.patient_id}.gif"
                raise FileNotFoundError(f"{job.root}: no {wanted}; it is part of SCR, published at {job.url}")
            masks.append(stored_mask_of(record, structure, str(record.patient_id), source))
    write_masks(job, masks)


DATASET = PublicDataset(
    name="jsrt",
    title="JSRT database with SCR annotations",
    url="http://db.jsrt.or.jp/eng.php (SCR: https://www.isi.uu.nl/Research/Databases/SCR)",
    terms="research, no redistribution of SCR; cite Shiraishi et al. 2000 and van Ginneken et al. 2006",
    split="SCR's folds (odd and even film numbers); validation held out of the training fold",
    makes="nodule, malignant (0/1), subtlety, size, box of the nodule, lung fields, heart, clavicles, sex, age",
    prepare=prepare,
    options=(
        Option("test_fold", 2, "SCR's fold that is tested on", (1, 2)),
        Option("png_bone_dark", False, "PNG conversions have bone dark: store them inverted"),
    ),
)
