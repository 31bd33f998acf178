"""What a segmentation run is given: films, model and settings, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from typing import Any

from cxw_monai.data.manifest import IMAGE_EXTENSIONS, find_images, read_datalist
from cxw_monai.data.schema import stored_spacing
from cxw_monai.io.files.identity import file_identity
from cxw_monai.io.radiograph import MAX_PIXELS
from cxw_monai.io.read import reader_options
from cxw_monai.io.results.dicom_seg import checked_seg_type
from cxw_monai.quality.review import checked_choice
from cxw_monai.training.precision import checked_amp

from .outputs import DEFAULT_FORMATS, FORMATS
from .predictor import film_inferer, on_device  # configs name them here

__all__ = ["SegmentSettings", "film_inferer", "film_spacings", "find_films", "model_hash", "on_device"]

_MANIFESTS = (".csv", ".json")


@dataclass(frozen=True)
class SegmentSettings:
    """How films are read, segmented and written.

    Attributes:
        threshold: a pixel is inside from this probability on, in (0, 1).
        keep_largest: structures of which only the largest connected part is kept (pixels that touch at a corner are
            connected); True for all of them, ``"auto"`` for single organs (``is_one_part``).
        formats: what is written, see :data:`~cxw_monai.inference.outputs.FORMATS`.
        voi: a DICOM's grey scale, see :func:`~cxw_monai.io.read_radiograph`, as for the following.
        voi_item: which VOI LUT or window.
        window: ``(center, width)`` to apply.
        percentiles: ``(low, high)`` percentiles to become 0 and 1.
        max_pixels: the most pixels that are decoded.
        sliding_window: side of the windows in px of the stored film, or None for whole films.
        amp: ``auto`` (bfloat16 where it is the faster one), ``bfloat16`` (where the hardware computes it) or ``none``.
        batch_size: films in memory beside the one that is worked on, at least 1. No mask depends on it.
        num_workers: reading threads, at least 1.
        resume: leave out films of which the output folder has results, made from the same content.
        seg_type: how a DICOM SEG stores masks: ``auto``, ``binary`` or ``fractional``
            (:mod:`cxw_monai.io.results.dicom_seg`).
        on_implausible: what is done about masks that can't be right (`cxw_monai.quality.review`): ``flag`` writes them
            and says so everywhere, ``skip`` writes none, ``keep`` doesn't look.
        augmented: test-time augmentation, at four times the time (`cxw_monai.inference.augmented`).

    Raises:
        ValueError: one of them is out of its range.
    """

    threshold: float = 0.5
    keep_largest: bool | str | Sequence[str] = "auto"
    formats: Sequence[str] = DEFAULT_FORMATS
    voi: str = "auto"
    voi_item: int | str = 0
    window: Sequence[float] | None = None
    percentiles: Sequence[float] | None = None
    max_pixels: int = MAX_PIXELS
    sliding_window: int | None = None
    amp: str = "auto"
    batch_size: int = 4
    num_workers: int = 2
    resume: bool = False
    seg_type: str = "auto"
    on_implausible: str = "flag"
    augmented: bool = False

    def __post_init__(self) -> None:
        threshold = self.threshold
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}")
        for name in ("batch_size", "num_workers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not self.formats or set(self.formats) - set(FORMATS):
            raise ValueError(f"formats must be some of {FORMATS}, got {self.formats}")
        if self.resume and "csv" not in self.formats:
            raise ValueError(f"resume needs the format 'csv', got {self.formats}")
        self.reader_options()  # wrong ones show now
        checked_amp(self.amp)
        checked_seg_type(self.seg_type)
        checked_choice(self.on_implausible)

    def reader_options(self) -> dict[str, Any]:
        """How films are read: keyword arguments of :func:`~cxw_monai.io.read_radiograph`."""
        return reader_options(self.voi, self.voi_item, self.window, self.percentiles, self.max_pixels)


def find_films(source: str | PathLike[str] | None, output_dir: str | PathLike[str]) -> list[str]:
    """The films to segment.

    Args:
        source: a film, a folder searched by :func:`~cxw_monai.data.manifest.find_images`, or a manifest (``.csv``,
            ``.json``) with a column ``image``, of which all splits are taken.
        output_dir: what lies in it is left out, wherever it is reached from the folder (through a link, too).

    Returns:
        Absolute paths, each once.

    Raises:
        ValueError: there is no film, or the output is the folder of the films itself.
        FileNotFoundError: the source, or a film of the manifest, doesn't exist.
    """
    if not source:
        raise ValueError("no input: give --input FILE, FOLDER or MANIFEST.csv")
    path, output = os.path.abspath(source), os.path.realpath(output_dir)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{source}: no such file or folder; check --input")
    if os.path.isfile(path):
        listed = path.lower().endswith(_MANIFESTS)
        films = [item["image"] for item in read_datalist(path, section="all")] if listed else [path]
    else:
        if os.path.realpath(path) == output:
            raise ValueError(f"{output_dir}: the results would lie among the films; give another --output")
        films = [item["image"] for item in find_images(path)]
        if not os.path.realpath(path).startswith(os.path.join(output, "")):  # else all of them lie in the output
            real_folder = lru_cache(maxsize=1024)(os.path.realpath)
            films = [film for film in films if not _lies_in(film, output, real_folder)]
    if not films:
        known = ", ".join(IMAGE_EXTENSIONS)
        raise ValueError(f"{source}: no film in it ({known}, or DICOM without an ending); check --input")
    return list(dict.fromkeys(films))


def film_spacings(source: str | PathLike[str]) -> dict[str, tuple[float, float]]:
    """Row and column spacing in mm of a manifest's films that have a `pixel_spacing_mm`, by path; of others, none.

    Raises:
        ValueError: a spacing that is no number above 0.
    """
    path = os.path.abspath(source)
    if not (path.lower().endswith(_MANIFESTS) and os.path.isfile(path)):
        return {}
    given = {item["image"]: stored_spacing(item) for item in read_datalist(path, section="all")}
    return {image: spacing for image, spacing in given.items() if spacing is not None}


def _lies_in(film: str, output: str, real_folder: Callable[[str], str]) -> bool:
    """Whether a film's file lies below a folder, both without links."""
    folder, name = os.path.split(film)
    real = os.path.realpath(film) if os.path.islink(film) else os.path.join(real_folder(folder), name)
    return real.startswith(os.path.join(output, ""))


def model_hash(path: str | PathLike[str]) -> str:
    """SHA-256 of a model's file, as 64 hexadecimal digits."""
    return file_identity(path).sha256
