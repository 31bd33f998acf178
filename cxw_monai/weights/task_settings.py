"""What settings in tasks' files share: plain values that a file of a stranger may hold, checked before use."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from cxw_monai.io.files.printable import printable
from cxw_monai.networks import VIT_SIZES

__all__ = [
    "CHEST",
    "MOST_PATCHES",
    "EncoderUse",
    "check_choice",
    "check_names",
    "check_range",
    "checked_image_size",
    "shown",
]

CHEST = "chest"
"""The anatomy whose films are checked for being upright frontal chest films."""

MOST_PATCHES = 2**14
"""Of an image; every patch attends to every other."""

_MOST = {"patch_size": 128, "pretrained_patch": 128, "in_channels": 64}
_MOST_SIDE, _MOST_NAMES, _NAME_BYTES = 4096, 255, 64  # px; numbers in a map of bytes; DICOM's labels
_NAME = re.compile(r"[^\W_][\w-]*")


def shown(value: object) -> str:
    """A value of a stranger's file for an error."""
    return printable(reprlib.repr(value), 80)


def checked_image_size(size: object, patch: int | None = None, name: str = "image_size") -> tuple[int, int]:
    """Height and width in px of images that a network takes.

    Args:
        size: one whole number or (height, width).
        patch: side of a patch in px, of which both are multiples; None where it isn't known yet.
        name: for the message.

    Raises:
        ValueError: it is something else, out of range, or has too many patches.
    """
    sides: list[int] = list(size) if isinstance(size, (list, tuple)) else [cast(int, size)] * 2
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= _MOST_SIDE for side in sides):
        raise ValueError(f"{name} must be one or two whole numbers of px from 1 to {_MOST_SIDE}, got {shown(size)}.")
    height, width = sides
    if patch is not None and (height % patch or width % patch or height * width // patch**2 > MOST_PATCHES):
        wanted = f"a positive multiple of patch_size {patch}, of at most {MOST_PATCHES} patches"
        raise ValueError(f"{name} {height} x {width} must be {wanted}.")
    return height, width


def check_names(names: object, field: str) -> None:
    """Names that become names of files, columns and labels.

    Args:
        names: what a file states.
        field: what they are of, for the message.

    Raises:
        ValueError: they are none, repeated, too many, or no such names.
    """
    if not isinstance(names, (list, tuple)) or not 1 <= len(names) <= _MOST_NAMES:
        raise ValueError(f"{field} must be a list of 1 to {_MOST_NAMES} names, got {shown(names)}.")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name.encode()) > _NAME_BYTES:
            wanted = f"letters, digits, '_' and '-', a letter or digit first, at most {_NAME_BYTES} bytes"
            raise ValueError(f"{field} must be named by {wanted}; got {shown(name)}.")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"{field} must have different names, whatever their case, got {shown(names)}.")


def check_range(name: str, value: object, most: int) -> None:
    """A whole number from 1 to `most`; raises ValueError."""
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, got {shown(value)}.")


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """One of some words; raises ValueError."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {shown(value)}.")


@dataclass(frozen=True)
class EncoderUse:
    """How a task's network uses an encoder, in plain values.

    Attributes:
        image_size: (height, width) in px that films are stretched to.
        size: the encoder's, one of `VIT_SIZES`.
        patch_size: side of a patch in px.
        in_channels: channels of the encoder's stem.
        encoder_image_size: (height, width) in px of the encoder's pretraining, whose positions it knows.
        pretrained_patch: side in px of a patch in pretraining.

    Raises:
        ValueError: one of them is of another type or out of its range.
    """

    image_size: tuple[int, int]
    size: str
    patch_size: int
    in_channels: int
    encoder_image_size: tuple[int, int]
    pretrained_patch: int

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            check_range(name, getattr(self, name), most)
        check_choice("size", self.size, tuple(VIT_SIZES))
        for name in ("image_size", "encoder_image_size"):
            if not isinstance(pair := getattr(self, name), tuple):
                raise ValueError(f"{name} must be (height, width), got {shown(pair)}.")
            checked_image_size(pair, self.patch_size, name)
        checked_image_size(self.encoder_image_size, self.pretrained_patch, "encoder_image_size")

    def sizes(self) -> dict[str, Any]:
        """Arguments of the networks' factories: `size`, `patch`, `image_size`, `in_channels`, `pretrained_patch`."""
        return {
            "size": self.size,
            "patch": self.patch_size,
            "image_size": self.encoder_image_size,
            "in_channels": self.in_channels,
            "pretrained_patch": self.pretrained_patch,
        }
