"""Structures that are projected to masks, and how label names of a CT map to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cxw_monai.data.tables import csv_rows

__all__ = ["BONE_PATTERN", "STRUCTURES", "VESSEL_PATTERN", "Structure", "ids_matching", "read_label_names"]


@dataclass(frozen=True)
class Structure:
    """One anatomical structure of which a mask is made.

    Attributes:
        name: name used in the manifest (``mask_<name>``); left and right are the patient's.
        pattern: regular expression that a whole label name must match to belong to the structure.
        threshold_mm: path length along the ray, in mm, above which a pixel belongs to the mask.
    """

    name: str
    pattern: str
    threshold_mm: float


STRUCTURES: tuple[Structure, ...] = (
    Structure("lung_left", r"lung_.*left|lung_left", 8.0),
    Structure("lung_right", r"lung_.*right|lung_right", 8.0),
    Structure("heart", r"heart.*|atrial_appendage_left", 8.0),
    Structure("clavicle_left", r"clavic(ula|le)_left", 2.0),
    Structure("clavicle_right", r"clavic(ula|le)_right", 2.0),
    Structure("ribs", r"rib_.*", 2.0),
    Structure("vertebrae", r"vertebrae_.*", 3.0),
    Structure("scapula_left", r"scapula_left", 2.0),
    Structure("scapula_right", r"scapula_right", 2.0),
    Structure("trachea", r"trachea", 4.0),
    Structure("aorta", r"aorta", 5.0),
    Structure("liver", r"liver", 8.0),
    Structure("sternum", r"sternum", 2.0),
    Structure("superior_vena_cava", r"superior_vena_cava", 4.0),
    Structure("abdomen", r"liver|spleen|stomach|colon|small_bowel|duodenum|pancreas|gallbladder|kidney_.*", 8.0),
)
"""The projected structures, in the order of their channels. Label names follow TotalSegmentator
(https://github.com/wasserth/TotalSegmentator#class-details)."""

BONE_PATTERN = (
    r"rib_.*|vertebrae_.*|sternum|costal_cartilages|scapula_.*|clavic(ula|le)_.*|humerus_.*|femur_.*|hip_.*"
    r"|sacrum|skull|spinal_cord"
)
"""Labels whose voxels are never taken for injected contrast."""

VESSEL_PATTERN = (
    r"heart.*|aorta|atrial_appendage_left|pulmonary_.*|brachiocephalic_.*|subclavian_.*|common_carotid_.*"
    r"|superior_vena_cava|inferior_vena_cava"
)
"""Labels that hold blood, in which injected contrast is replaced by plain blood."""


def read_label_names(path: str | Path) -> dict[int, str]:
    """Reads the names of a label map's values.

    Args:
        path: CSV file with at least the columns ``structure`` (name) and ``id`` (value in the label map).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing or an id isn't an integer.
    """
    names = {}
    for where, columns, cells in csv_rows(path, ("structure", "id")):
        row = dict(zip(columns, cells, strict=True))
        if not row["id"].strip().isdigit():
            raise ValueError(f"structures: {path}, {where}: id must be a whole number >= 0, got {row['id']!r}")
        names[int(row["id"])] = row["structure"].strip()
    return names


def ids_matching(names: dict[int, str], pattern: str) -> list[int]:
    """Label values whose whole name matches a regular expression, in ascending order."""
    return sorted(value for value, name in names.items() if re.fullmatch(pattern, name))
