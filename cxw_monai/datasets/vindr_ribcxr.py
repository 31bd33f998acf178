"""VinDr-RibCXR: 245 frontal films with twenty ribs outlined one by one.

Layout (https://vindr.ai/datasets/ribcxr)::

    data/train/img/VinDr_RibCXR_train_000.png ...    data/train/Vindr_RibCXR_train_mask.json
    data/val/img/VinDr_RibCXR_val_000.png ...        data/val/Vindr_RibCXR_val_mask.json

also with ``Data`` or no upper folder, and the JSON files below ``Annotations``. A JSON holds ``img``, paths by number,
and ``R1`` ... ``R10``, ``L1`` ... ``L10``: the corners ``{"x", "y"}`` of that rib by the film's number. R is the
patient's right; the ribs are counted from above. Ribs may overlap, so there is one mask per rib: ``rib_right_1`` ...
``rib_left_10``.

The published 196 and 49 films are training and, as in the publication, test; validation is held out of the 196.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from cxw_monai.data.schema import Record
from cxw_monai.io.files.json_files import read_json

from .common import Job
from .made_files import mask_of, write_masks
from .masks import polygon_mask
from .registry import PublicDataset

__all__ = ["DATASET", "RIBS"]

RIBS = {f"{s[0].upper()}{n}": f"rib_{s}_{n}" for s in ("right", "left") for n in range(1, 11)}
"""The published names of the ribs, and the manifest's."""

_BASES = ("data", "Data", ".")


def prepare(job: Job) -> list[Record]:
    """The records of all films; see the module."""
    records, outlines = [], {}
    for part, split in (("train", "training"), ("val", "test")):
        name = f"Vindr_RibCXR_{part}_mask.json"
        folders = (part, ".", f"Annotations/{part}")
        table = job.find(*(f"{base}/{folder}/{name}" for base in _BASES for folder in folders))
        images = job.find(*(f"{base}/{part}/img" for base in _BASES))
        content = _read(table)
        for number, published in content["img"].items():
            path = images / PurePosixPath(published).name
            records.append(Record(str(path), path.stem, split=split, view="PA"))
            outlines[str(path)] = {rib: content[rib].get(number) for rib in RIBS}
    records = job.sized(job.present(records))
    masks = []
    for record in records:
        for rib, structure in RIBS.items():
            points = outlines[record.image][rib]
            if points:
                corners = [(point["x"], point["y"]) for point in points]
                make = partial(polygon_mask, [corners], *record.size)
                masks.append(mask_of(record, structure, Path(record.image).stem, make, f"{corners} {record.size}"))
    absent = len(records) * len(RIBS) - len(masks)
    if absent:
        job.note(f"{absent} of {len(records) * len(RIBS)} ribs have no outline: no mask")
    write_masks(job, masks)
    job.hold_out(records)
    return records


def _read(table: Path) -> dict[str, Any]:
    content = read_json(table)
    content = content if isinstance(content, dict) else {}
    absent = [name for name in ("img", *RIBS) if not isinstance(content.get(name), dict)]
    if absent:
        raise ValueError(f"{table}: no {', '.join(absent)}; expected the published file, see {DATASET.url}")
    return content


DATASET = PublicDataset(
    name="vindr_ribcxr",
    title="VinDr-RibCXR",
    url="https://vindr.ai/datasets/ribcxr",
    terms="data use agreement of VinBigData: research, no redistribution",
    split="official: the 49 validation films are the test; validation held out of the 196 training films",
    makes="masks of ribs 1 to 10 on either side",
    prepare=prepare,
)
