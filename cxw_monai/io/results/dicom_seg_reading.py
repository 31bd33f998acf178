"""Masks of a DICOM SEG of a film: what :mod:`~.dicom_seg` writes, and SEGs of others for single films.

Source: DICOM PS3.3 C.8.20 (Segmentation), https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.8.20.html
"""

from __future__ import annotations

from os import PathLike

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from cxw_monai.io.dicom.file import is_dicom_header, quiet_pydicom
from cxw_monai.io.radiograph import UnusableError, errors_of

__all__ = ["read_dicom_seg"]

_SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
_MOST_SEGMENTS = 64


def read_dicom_seg(path: str | PathLike[str], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """The masks of a BINARY or FRACTIONAL SEG of one film.

    Args:
        path: the SEG, uncompressed or of a transfer syntax that pydicom decodes (RLE Lossless).
        shape: rows and columns as the film stores them.

    Returns:
        bool ``[*shape]`` by segment label, in the segments' order; of a fractional one, what is at least half of the
        largest value. A segment without a frame has no pixels.

    Raises:
        RadiographError: no such SEG, damaged, of another size, or with two segments of one label.
    """
    with quiet_pydicom(), errors_of(path, "the DICOM SEG cannot be read ({})", "save it again"):
        with open(path, "rb") as stream:
            if not is_dicom_header(stream.read(132)):
                raise UnusableError("not a DICOM file", "save it as a DICOM SEG")
        seg = pydicom.dcmread(path, force=True)
        numbers = _frames_of_segments(seg, shape)
        frames = np.asarray(seg.pixel_array).reshape(len(numbers), *shape)
        least = 1 if seg.SegmentationType == "BINARY" else int(seg.MaximumFractionalValue) / 2
        labels = {int(one.SegmentNumber): str(one.SegmentLabel) for one in seg.SegmentSequence}
        if len(set(labels.values())) < len(seg.SegmentSequence):
            raise UnusableError("two segments have the same label or number", "give each a label of its own")
        masks = {label: np.zeros(shape, bool) for label in labels.values()}
        for number, frame in zip(numbers, frames, strict=True):
            masks[labels[number]] |= frame >= least
    return masks


def _frames_of_segments(seg: Dataset, shape: tuple[int, int]) -> list[int]:
    """The segment's number of each frame, checked before any pixel is decoded."""
    if seg.get("SOPClassUID") != _SEG_CLASS or seg.get("SegmentationType") not in ("BINARY", "FRACTIONAL"):
        raise UnusableError("not a BINARY or FRACTIONAL DICOM SEG", "save it as one of these")
    if (seg.Rows, seg.Columns) != shape:
        got, wanted = (f"{rows}x{columns}" for rows, columns in ((seg.Rows, seg.Columns), shape))
        raise UnusableError(f"the label is {got} px, its film {wanted}", "draw it on the film itself")
    shared = seg.get("SharedFunctionalGroupsSequence") or [Dataset()]
    groups = seg.get("PerFrameFunctionalGroupsSequence") or []
    if not 0 < len(groups) <= _MOST_SEGMENTS or int(seg.NumberOfFrames) != len(groups):
        raise UnusableError(f"{len(groups)} frames, not one of each of up to {_MOST_SEGMENTS} segments")
    where = [group if "SegmentIdentificationSequence" in group else shared[0] for group in groups]
    return [int(one.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for one in where]
