"""What defines a segmentation network, in plain values that a file of a stranger may hold, checked before use."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from typing import cast

from cxw_monai.io.files.printable import printable
from cxw_monai.networks import VIT_SIZES, RadiographSegmenter, radiograph_segmenter
from cxw_monai.networks.decoders import DECODERS

__all__ = ["MOST_PATCHES", "SegmenterSettings", "checked_image_size"]

MOST_PATCHES = 2**14
"""Of an image; every patch attends to every other."""

_MOST = {"patch_size": 128, "pretrained_patch": 128, "in_channels": 64, "base_channels": 1024}
_MOST_SIDE, _MOST_STRUCTURES, _NAME_BYTES = 4096, 255, 64  # px; numbers in a map of bytes; DICOM's labels
_NAME = re.compile(r"[^\W_][\w-]*")


def _shown(value: object) -> str:
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
        raise ValueError(f"{name} must be one or two whole numbers of px from 1 to {_MOST_SIDE}, got {_shown(size)}.")
    height, width = sides
    if patch is not None and (height % patch or width % patch or height * width // patch**2 > MOST_PATCHES):
        wanted = f"a positive multiple of patch_size {patch}, of at most {MOST_PATCHES} patches"
        raise ValueError(f"{name} {height} x {width} must be {wanted}.")
    return height, width


def _check_structures(names: object) -> None:
    """Structures' names become names of files, columns and labels."""
    if not isinstance(names, (list, tuple)) or not 1 <= len(names) <= _MOST_STRUCTURES:
        raise ValueError(f"structures must be a list of 1 to {_MOST_STRUCTURES} names, got {_shown(names)}.")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name.encode()) > _NAME_BYTES:
            wanted = f"letters, digits, '_' and '-', a letter or digit first, at most {_NAME_BYTES} bytes"
            raise ValueError(f"structures must be named by {wanted}; got {_shown(name)}.")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"structures must have different names, whatever their case, got {_shown(names)}.")


@dataclass(frozen=True)
class SegmenterSettings:
    """What defines a `RadiographSegmenter`, in plain values.

    Attributes:
        structures: names in the order of the output's channels.
        image_size: (height, width) in px that films are stretched to.
        size: the encoder's, one of `VIT_SIZES`.
        patch_size: side of a patch in px.
        decoder: one of `cxw_monai.networks.decoders.DECODERS`.
        base_channels: width of the decoder.
        in_channels: channels of the encoder's stem.
        encoder_image_size: (height, width) in px of the encoder's pretraining, whose positions it knows.
        pretrained_patch: side in px of a patch in pretraining.

    Raises:
        ValueError: one of them is of another type or out of its range.
    """

    structures: tuple[str, ...]
    image_size: tuple[int, int]
    size: str
    patch_size: int
    decoder: str
    base_channels: int
    in_channels: int
    encoder_image_size: tuple[int, int]
    pretrained_patch: int

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}, got {_shown(value)}.")
        for name, known in (("size", tuple(VIT_SIZES)), ("decoder", DECODERS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {_shown(value)}.")
        _check_structures(self.structures)
        pairs = {"image_size": self.image_size, "encoder_image_size": self.encoder_image_size}
        for name, pair in pairs.items():
            if not isinstance(pair, tuple):
                raise ValueError(f"{name} must be (height, width), got {_shown(pair)}.")
            checked_image_size(pair, self.patch_size, name)
        checked_image_size(self.encoder_image_size, self.pretrained_patch, "encoder_image_size")

    def network(self, drop_path: float = 0.0, frozen_blocks: int = 0) -> RadiographSegmenter:
        """The network with fresh weights."""
        return radiograph_segmenter(
            size=self.size,
            patch=self.patch_size,
            structures=self.structures,
            decoder=self.decoder,
            base_channels=self.base_channels,
            image_size=self.encoder_image_size,
            in_channels=self.in_channels,
            drop_path=drop_path,
            frozen_blocks=frozen_blocks,
            pretrained_patch=self.pretrained_patch,
        )
