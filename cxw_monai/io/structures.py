"""What a structure's name means: its side, its DICOM codes and its colour, in one table.

Codes are SNOMED CT (``SCT``) or DICOM's own (``DCM``), as DICOM PS3.16 lists them for segmentations (CID 7150 for the
category; CID 6102, 7151 and 7193 for the type):
https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_B.html

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), made to be distinguished with any common colour
vision, then those of Tol's "muted" scheme (https://personal.sron.nl/~pault/), and a lime green.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PRIVATE_SCHEME", "StructureCode", "describe_structure", "is_one_part", "split_side", "structure_colours"]

Triplet = tuple[str, str, str]
Colour = tuple[int, int, int]

PRIVATE_SCHEME = "99CXW"
"""Coding scheme designator of names that the table doesn't hold."""

ANATOMY: Triplet = ("91723000", "SCT", "Anatomical Structure")
ABNORMAL: Triplet = ("49755003", "SCT", "Morphologically Abnormal Structure")
OBJECT: Triplet = ("260787004", "SCT", "Physical object")
UNKNOWN: Triplet = ("309825002", "SCT", "Spatial and Relational Concept")
SIDES: dict[str, Triplet] = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}

ORANGE, SKY, GREEN, YELLOW = (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)
BLUE, VERMILION, PURPLE = (0, 114, 178), (213, 94, 0), (204, 121, 167)
ROSE, CYAN, TEAL, OLIVE = (204, 102, 119), (136, 204, 238), (68, 170, 153), (153, 153, 51)
WINE, VIOLET, SAND, GREY, LIME = (136, 34, 85), (170, 68, 153), (221, 204, 119), (221, 221, 221), (36, 255, 36)
_SPARE = (LIME, ORANGE, PURPLE, SAND, TEAL, ROSE, OLIVE, VIOLET, GREY, CYAN, WINE, YELLOW, BLUE, SKY, GREEN, VERMILION)

# name without its side -> (category, type, colour, colour of the right one of a pair)
_TABLE: dict[str, tuple[Triplet, Triplet, Colour, Colour]] = {
    "lung": (ANATOMY, ("39607008", "SCT", "Lung"), SKY, GREEN),
    "heart": (ANATOMY, ("80891009", "SCT", "Heart"), VERMILION, VERMILION),
    "mediastinum": (ANATOMY, ("72410000", "SCT", "Mediastinum"), PURPLE, PURPLE),
    "clavicle": (ANATOMY, ("51299004", "SCT", "Clavicle"), BLUE, ORANGE),
    "rib": (ANATOMY, ("113197003", "SCT", "Rib"), SAND, SAND),
    "vertebra": (ANATOMY, ("51282000", "SCT", "Vertebra"), OLIVE, OLIVE),
    "spine": (ANATOMY, ("421060004", "SCT", "Spine"), OLIVE, OLIVE),
    "scapula": (ANATOMY, ("79601000", "SCT", "Scapula"), TEAL, ROSE),
    "sternum": (ANATOMY, ("56873002", "SCT", "Sternum"), GREY, GREY),
    "humerus": (ANATOMY, ("85050009", "SCT", "Humerus"), CYAN, VIOLET),
    "trachea": (ANATOMY, ("44567001", "SCT", "Trachea"), YELLOW, YELLOW),
    "airway": (ANATOMY, ("89187006", "SCT", "Airway structure"), YELLOW, YELLOW),
    "carina": (ANATOMY, ("28700002", "SCT", "Carina"), YELLOW, YELLOW),
    "aorta": (ANATOMY, ("15825003", "SCT", "Aorta"), VIOLET, VIOLET),
    "superior_vena_cava": (ANATOMY, ("48345005", "SCT", "Superior vena cava"), CYAN, CYAN),
    "diaphragm": (ANATOMY, ("5798000", "SCT", "Diaphragm"), WINE, WINE),
    "liver": (ANATOMY, ("10200004", "SCT", "Liver"), WINE, WINE),
    "abdomen": (ANATOMY, ("818981001", "SCT", "Abdomen"), PURPLE, PURPLE),
    "pneumothorax": (ABNORMAL, ("36118008", "SCT", "Pneumothorax"), LIME, LIME),
    "pleural_effusion": (ABNORMAL, ("60046008", "SCT", "Pleural effusion"), BLUE, BLUE),
    "opacity": (ABNORMAL, ("112001", "DCM", "Opacity"), ROSE, ROSE),
    "ground_glass": (ABNORMAL, ("112120", "DCM", "Ground glass opacity"), SAND, SAND),
    "nodule": (ABNORMAL, ("27925004", "SCT", "Nodule"), ROSE, ROSE),
    "mass": (ABNORMAL, ("4147007", "SCT", "Mass"), ROSE, ROSE),
    "tube": (OBJECT, ("83059008", "SCT", "Tube"), GREY, GREY),
    "endotracheal_tube": (OBJECT, ("26412008", "SCT", "Endotracheal tube"), VIOLET, VIOLET),
    "feeding_tube": (OBJECT, ("25062003", "SCT", "Feeding tube"), ORANGE, ORANGE),
    "chest_tube": (OBJECT, ("112173", "DCM", "Chest tube"), OLIVE, OLIVE),
    "central_line": (OBJECT, ("112174", "DCM", "Central line"), TEAL, TEAL),
    "pacemaker": (OBJECT, ("14106009", "SCT", "Cardiac pacemaker"), GREY, GREY),
}
_ALIASES = {
    "lungs": "lung",
    "clavicles": "clavicle",
    "ribs": "rib",
    "vertebrae": "vertebra",
    "vertebral_column": "spine",
    "scapulae": "scapula",
    "airways": "airway",
    "cardiomediastinum": "mediastinum",  # the heart is one of the mediastinum's organs
    "consolidation": "opacity",
    "infiltrate": "opacity",
    "effusion": "pleural_effusion",
    "ground_glass_opacity": "ground_glass",
    "nodules": "nodule",
    "tubings": "tube",
    "tubes": "tube",
    "nasogastric_tube": "feeding_tube",
    "central_venous_line": "central_line",
    "central_venous_catheter": "central_line",
}
_SINGLE = {"heart", "mediastinum", "cardiomediastinum"}
_PAIRED = {"lung", "clavicle"}


@dataclass(frozen=True)
class StructureCode:
    """What a structure's name means; codes are (value, scheme, meaning)."""

    category: Triplet  # of the segmented property
    type: Triplet  # of the segmented property, without its side
    side_code: Triplet | None
    known: bool  # whether the table holds the name; otherwise the type is a private code that repeats it


def split_side(name: str) -> tuple[str, str | None]:
    """A structure's name in lower case without ``left`` or ``right``, and the side.

    ``lung_left``, ``left_lung`` and ``Left lung`` are all ``("lung", "left")``; a name with both words or neither has
    no side.
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    sides = [word for word in words if word in SIDES]
    if len(sides) != 1:
        return "_".join(words), None
    return "_".join(word for word in words if word not in SIDES), sides[0]


def _entry(name: str) -> tuple[Triplet, Triplet, Colour, Colour] | None:
    base, _ = split_side(name)
    return _TABLE.get(_ALIASES.get(base, base))


def is_one_part(name: str) -> bool:
    """Whether a structure is a single organ, shown in one piece by a frontal film: the heart, one lung, one clavicle.

    Findings, devices, what is counted in several (``lungs``, ``ribs``) and unknown names are not.
    """
    base, side = split_side(name)
    return base in _SINGLE or (base in _PAIRED and side is not None)


def describe_structure(name: str) -> StructureCode:
    """Codes and side of a structure by its name.

    A name that isn't in the table keeps its side; its type is a private code (scheme ``99CXW``) that repeats the name,
    in the category "Spatial and Relational Concept", which claims nothing about the anatomy.
    """
    base, side = split_side(name)
    side_code = SIDES[side] if side else None
    entry = _entry(name)
    if entry is None:
        return StructureCode(UNKNOWN, (base, PRIVATE_SCHEME, base.replace("_", " ")), side_code, False)
    return StructureCode(entry[0], entry[1], side_code, True)


def structure_colours(names: Sequence[str]) -> list[Colour]:
    """An RGB colour (0 to 255) per structure.

    Structures of the table always have the same colour; others take, in their order, spare ones that none of the
    known uses (and start again when these are used up).
    """
    entries = [(_entry(name), split_side(name)[1]) for name in names]
    fixed = [None if entry is None else entry[3] if side == "right" else entry[2] for entry, side in entries]
    spare = [colour for colour in _SPARE if colour not in fixed] or list(_SPARE)
    free = iter(range(len(names)))
    return [colour or spare[next(free) % len(spare)] for colour in fixed]
