"""What a structure's name means: its definition, its side, its DICOM codes and its colour, in one table.

Two names of a lung: ``lung_field_left`` is the visible part, as outlined in JSRT/SCR (van Ginneken et al., Med Image
Anal 2006; 10:19-40), Montgomery and Shenzhen (Candemir et al., IEEE TMI 2014; 33:577-590); ``lung_left`` is the whole
lung as in V7's masks (https://github.com/v7labs/covid-19-xray-dataset) and in projections of a CT. The first is a part
of the second. DICOM's context groups have no code for the visible lung field. So both have the type Lung, by which
archives find them, and the field has a modifier beside its side, a private code that tells it from the whole lung.

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
from typing import Any

__all__ = [
    *("PRIVATE_SCHEME", "StructureCode", "definitions", "describe_structure", "drawing_order", "fronts_of"),
    *("is_one_part", "parts_of", "split_side", "structure_colours"),
]

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


@dataclass(frozen=True)
class _Entry:
    """What the table holds of a structure; its definition is a sentence, `short` a word or two of it for a legend."""

    category: Triplet
    type: Triplet
    definition: str
    colour: Colour
    right_colour: Colour | None = None  # of the right one of a pair
    short: str = ""
    modifier: Triplet | None = None  # of the type, beside its side


def _organ(
    code: str, meaning: str, definition: str, colour: Colour, right_colour: Colour | None = None, **more: Any
) -> _Entry:
    return _Entry(ANATOMY, (code, "SCT", meaning), definition, colour, right_colour, **more)


_TABLE: dict[str, _Entry] = {  # by the name without its side
    "lung_field": _organ(
        "39607008",
        "Lung",
        "The visible part of the lung, down to the diaphragm and up to the edge of heart and mediastinum, without what "
        "lies behind them.",
        YELLOW,
        SAND,
        short="visible",
        modifier=("lung_field", PRIVATE_SCHEME, "Visible lung field"),
    ),
    "lung": _organ(
        "39607008",
        "Lung",
        "The whole lung down to the visible diaphragm, with what lies behind heart and mediastinum up to the spine's "
        "edge.",
        SKY,
        GREEN,
        short="also behind the heart",
    ),
    "heart": _organ(
        "80891009",
        "Heart",
        "The heart's rounded silhouette, continued over spine and diaphragm, without the great and the hilar vessels.",
        VERMILION,
    ),
    "mediastinum": _organ(
        "72410000",
        "Mediastinum",
        "Heart, aorta and superior vena cava as one silhouette between the lungs, down to the heart's lower edge.",
        PURPLE,
        short="with the heart",
    ),
    "clavicle": _organ(
        "51299004",
        "Clavicle",
        "The collarbone, as far as it is on the film, also where it lies over lung and ribs.",
        *(BLUE, ORANGE),
    ),
    "rib": _organ("113197003", "Rib", "Rib bone, its front and its back part, also where it lies over the lung.", SAND),
    "vertebra": _organ(
        "51282000", "Vertebra", "Bone of vertebrae, also where it lies behind heart and mediastinum.", OLIVE
    ),
    "spine": _organ(
        "421060004", "Spine", "All vertebrae together, also where they lie behind heart and mediastinum.", OLIVE
    ),
    "scapula": _organ("79601000", "Scapula", "The shoulder blade, also where it lies over the lung.", TEAL, ROSE),
    "sternum": _organ("56873002", "Sternum", "The breastbone, also where spine and mediastinum hide it.", GREY),
    "humerus": _organ("85050009", "Humerus", "The bone of the upper arm.", CYAN, VIOLET),
    "trachea": _organ("44567001", "Trachea", "The air in the windpipe, down to where it divides.", YELLOW),
    "airway": _organ("89187006", "Airway structure", "The air in the windpipe and the main bronchi.", YELLOW),
    "carina": _organ("28700002", "Carina", "The place where the windpipe divides.", YELLOW),
    "aorta": _organ("15825003", "Aorta", "The whole aorta, also where heart and spine hide it.", VIOLET),
    "superior_vena_cava": _organ(
        "48345005",
        "Superior vena cava",
        "The vein along the upper right edge of the mediastinum, down to the heart.",
        CYAN,
    ),
    "diaphragm": _organ("5798000", "Diaphragm", "The dome that the lung lies on.", WINE),
    "liver": _organ("10200004", "Liver", "The whole liver, also where the lung lies before or behind it.", WINE),
    "abdomen": _organ(
        "818981001",
        "Abdomen",
        "The organs below the diaphragm, also where the lung lies before or behind them.",
        PURPLE,
    ),
    "pneumothorax": _Entry(
        ABNORMAL, ("36118008", "SCT", "Pneumothorax"), "Air between the lung's visible edge and the chest wall.", LIME
    ),
    "pleural_effusion": _Entry(
        ABNORMAL, ("60046008", "SCT", "Pleural effusion"), "Fluid between the lung and the chest wall.", BLUE
    ),
    "opacity": _Entry(ABNORMAL, ("112001", "DCM", "Opacity"), "Lung that is denser than around it.", ROSE),
    "ground_glass": _Entry(
        *(ABNORMAL, ("112120", "DCM", "Ground glass opacity")),
        "Denser lung through which the vessels are still visible.",
        SAND,
    ),
    "nodule": _Entry(ABNORMAL, ("27925004", "SCT", "Nodule"), "A rounded density in the lung of up to 3 cm.", ROSE),
    "mass": _Entry(ABNORMAL, ("4147007", "SCT", "Mass"), "A density of more than 3 cm.", ROSE),
    "tube": _Entry(OBJECT, ("83059008", "SCT", "Tube"), "Any tube in or on the patient.", GREY),
    "endotracheal_tube": _Entry(
        OBJECT, ("26412008", "SCT", "Endotracheal tube"), "A breathing tube in the windpipe.", VIOLET
    ),
    "feeding_tube": _Entry(
        OBJECT, ("25062003", "SCT", "Feeding tube"), "A tube through the gullet, to the stomach or beyond.", ORANGE
    ),
    "chest_tube": _Entry(
        OBJECT, ("112173", "DCM", "Chest tube"), "A drain between the lung and the chest wall.", OLIVE
    ),
    "central_line": _Entry(
        OBJECT, ("112174", "DCM", "Central line"), "A catheter whose tip lies in a large vein near the heart.", TEAL
    ),
    "pacemaker": _Entry(
        OBJECT, ("14106009", "SCT", "Cardiac pacemaker"), "A pacemaker's or defibrillator's case and leads.", GREY
    ),
}
_ALIASES = {
    "lungs": "lung",
    "lung_fields": "lung_field",
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
_PAIRED = {"lung", "lung_field", "clavicle"}
_WHOLES = {"lung_field": "lung", "heart": "mediastinum"}  # what a structure is a part of, by these definitions
_FRONTS = {"lung": ("heart", "mediastinum")}  # what a structure is also drawn behind


@dataclass(frozen=True)
class StructureCode:
    """What a structure's name means; codes are (value, scheme, meaning).

    Attributes:
        category: of the segmented property.
        type: of the segmented property, without its side.
        side_code: left or right, if it has a side.
        known: whether the table holds the name; otherwise the type is a private code that repeats it.
        modifier: of the type, beside its side; None for most.
        definition: what belongs to it, in a sentence; empty for a name that the table doesn't hold.
        short: a word or two of the definition, where the name alone is ambiguous; else empty.
    """

    category: Triplet
    type: Triplet
    side_code: Triplet | None
    known: bool
    modifier: Triplet | None = None
    definition: str = ""
    short: str = ""


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


def _base(name: str) -> str:
    """The table's name of a structure, without its side."""
    base, _ = split_side(name)
    return _ALIASES.get(base, base)


def is_one_part(name: str) -> bool:
    """Whether a structure is a single organ, shown in one piece by a frontal film: the heart, one lung, one clavicle.

    Findings, devices, what is counted in several (``lungs``, ``ribs``) and unknown names are not.
    """
    base, side = split_side(name)
    return base in _SINGLE or (base in _PAIRED and side is not None)


def describe_structure(name: str) -> StructureCode:
    """Definition, codes and side of a structure by its name.

    A name that isn't in the table keeps its side; its type is a private code (scheme ``99CXW``) that repeats the name,
    in the category "Spatial and Relational Concept", which claims nothing about the anatomy.
    """
    base, side = split_side(name)
    side_code = SIDES[side] if side else None
    entry = _TABLE.get(_base(name))
    if entry is None:
        return StructureCode(UNKNOWN, (base, PRIVATE_SCHEME, base.replace("_", " ")), side_code, False)
    definition = f"{entry.definition[:-1]} (the patient's {side})." if side else entry.definition
    return StructureCode(entry.category, entry.type, side_code, True, entry.modifier, definition, entry.short)


def definitions(names: Sequence[str]) -> dict[str, str]:
    """The definition of each structure that the table holds."""
    return {name: code.definition for name in names if (code := describe_structure(name)).known}


def parts_of(name: str, names: Sequence[str]) -> list[str]:
    """Which of the structures are parts of another by their definitions, on its side: a lung's field, and the heart of
    the mediastinum."""
    side = split_side(name)[1]
    return [one for one in names if _WHOLES.get(_base(one)) == _base(name) and split_side(one)[1] == side]


def fronts_of(name: str, names: Sequence[str]) -> list[str]:
    """Which of the structures hide nothing of another by its definition: it is also drawn behind them."""
    return [one for one in names if _base(one) in _FRONTS.get(_base(name), ())]


def drawing_order(names: Sequence[str]) -> list[int]:
    """Places of the structures from the lowest to the one on top, where one that lies on another would hide it.

    Lungs and mediastinum are lowest, then their parts, then all others; within each in the order of the names.
    """

    def level(place: int) -> int:
        base = _base(names[place])
        return 0 if base in _WHOLES.values() else 1 if base in _WHOLES else 2

    return sorted(range(len(names)), key=level)


def structure_colours(names: Sequence[str]) -> list[Colour]:
    """An RGB colour (0 to 255) per structure.

    Structures of the table always have the same colour; others take, in their order, spare ones that none of the
    known uses (and start again when these are used up).
    """
    fixed = [_colour(name) for name in names]
    spare = [colour for colour in _SPARE if colour not in fixed] or list(_SPARE)
    free = iter(range(len(names)))
    return [colour or spare[next(free) % len(spare)] for colour in fixed]


def _colour(name: str) -> Colour | None:
    """The table's colour of a structure."""
    entry = _TABLE.get(_base(name))
    if entry is None:
        return None
    return entry.right_colour or entry.colour if split_side(name)[1] == "right" else entry.colour
