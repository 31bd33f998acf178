"""Masks of a DICOM film as a DICOM Segmentation (SEG) through highdicom.

One instance in a series of its own, in the film's study: a segment per structure, segments may overlap, every segment
has one frame of exactly the film's rows and columns. A structure that wasn't found keeps its segment, with a frame of
zeros: it says that the structure was looked for.

A projection has no patient geometry, so there is neither a frame of reference nor a position of a plane. The shared
functional groups hold two things all the same, without which viewers (OHIF 3.13) show nothing: pixel measures, with the
film's spacing where it has a valid one (PixelSpacing, else ImagerPixelSpacing, as viewers take it for the film itself)
and a slice thickness of 1 that means nothing; and a plane orientation, rows to the right and columns down, which is a
viewer's convention and says nothing of the patient. Without a spacing, ``highdicom.imread`` opens the file, but
``highdicom.seg.segread`` insists on one.

Masks are BINARY where every reader finds the frames: one frame, or frames of whole bytes (rows x columns a multiple of
8). Else a frame begins within a byte, where some readers (OHIF 3.13, ITK 5.4) look at the next whole one and show it
shifted or scrambled; then they are FRACTIONAL: occupancy, 0 and 255 only, in RLE Lossless.

What it takes of the film's header, and its UIDs, are described in :mod:`~.dicom_shared`.

Sources: DICOM PS3.3 A.51 and C.8.20.2 (Segmentation IOD), https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_A.51.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from os import PathLike

import highdicom as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from pydicom.valuerep import DS

from cxw_monai.io.dicom.file import quiet_pydicom
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.structures import PRIVATE_SCHEME, describe_structure, structure_colours

from .dicom_shared import (
    LOSSY,
    SPACING,
    SegAlgorithm,
    copy_if_valid,
    copy_patient_and_study,
    of_known_class,
    read_header,
    reference_to,
    result_uid,
    save_result,
    series_number,
    set_dates,
)
from .mask_files import check_structures

__all__ = ["SEG_TYPES", "SegAlgorithm", "checked_seg_type", "write_dicom_seg"]

SEG_TYPES = ("auto", "binary", "fractional")
"""How masks may be stored; ``auto`` is binary where all readers find the frames, else fractional."""

_TO_THE_RIGHT_AND_DOWN = [1, 0, 0, 0, 1, 0]
_SERIES_OFFSET = 1000  # a SEG's series number is its film's plus this


def checked_seg_type(seg_type: str) -> str:
    """The setting, if it is one of :data:`SEG_TYPES`.

    Raises:
        ValueError: it isn't.
    """
    if seg_type not in SEG_TYPES:
        raise ValueError(f"seg_type must be one of {', '.join(SEG_TYPES)}, got {seg_type!r}")
    return seg_type


def write_dicom_seg(
    path: str | PathLike[str],
    source: str | PathLike[str],
    masks: np.ndarray,
    structures: Sequence[str],
    *,
    created: datetime,
    algorithm: SegAlgorithm | None = None,
    seg_type: str = "auto",
) -> None:
    """Write a DICOM SEG of a film.

    Args:
        path: the SEG.
        source: the film's own DICOM file, of any transfer syntax, with or without preamble.
        masks: bool ``[S, Rows, Columns]`` on the film's stored pixel grid.
        structures: S names, see :func:`~cxw_monai.io.results.mask_files.check_structures`; they are the segments'
            labels.
        created: time of creation, in the clinic's own time.
        algorithm: what made the masks.
        seg_type: one of :data:`SEG_TYPES`; see the module.

    Raises:
        RadiographError: the source is no DICOM image, has several frames, lacks a UID that a reference needs, or is of
            a class that highdicom doesn't know.
        ValueError: masks or names of another form, or an unknown type.
    """
    names = check_structures(structures)
    if checked_seg_type(seg_type) == "auto":
        seg_type = "binary" if len(masks) == 1 or masks[0].size % 8 == 0 else "fractional"
    algorithm = algorithm or SegAlgorithm()
    with quiet_pydicom():
        header = read_header(source, "SEG")
        shape = (len(names), header.Rows, header.Columns)
        if masks.dtype != bool or masks.shape != shape:
            raise ValueError(f"{source}: masks must be bool {list(shape)}, got {masks.dtype} of shape {masks.shape}")
        with of_known_class(source, header, "SEG"):
            seg = _build(header, masks, names, algorithm, seg_type)
        copy_patient_and_study(header, seg)
        copy_if_valid(header, seg, ("PatientOrientation",))
        set_dates(seg, created)
        with atomic_file(path) as stream:
            save_result(seg, stream)


def _build(
    header: Dataset,
    masks: np.ndarray,
    names: Sequence[str],
    algorithm: SegAlgorithm,
    seg_type: str,
) -> hd.seg.Segmentation:
    """The SEG, still without patient, study and dates."""
    digest = hashlib.sha256(np.packbits(masks).tobytes()).hexdigest()
    identity = [header.SOPInstanceUID, *map(str, masks.shape), *vars(algorithm).values(), *names, digest, seg_type]
    private = any(not meaning.known or meaning.modifier for meaning in map(describe_structure, names))
    seg = hd.seg.Segmentation(
        source_images=[reference_to(header)],
        pixel_array=np.ascontiguousarray(masks.transpose(1, 2, 0)[None], dtype=np.uint8),  # [1, Rows, Columns, S]
        segmentation_type=hd.seg.SegmentationTypeValues(seg_type.upper()),
        fractional_type=hd.seg.SegmentationFractionalTypeValues.OCCUPANCY,  # of a fractional one
        max_fractional_value=255,
        segment_descriptions=_segments(names, algorithm),
        series_instance_uid=result_uid("series", identity),
        series_number=series_number(header, _SERIES_OFFSET),
        sop_instance_uid=result_uid("instance", identity),
        instance_number=1,
        manufacturer=algorithm.manufacturer,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.version,
        content_label="SEGMENTATION",
        content_description=algorithm.description,
        series_description=algorithm.description,
        transfer_syntax_uid=ExplicitVRLittleEndian if seg_type == "binary" else RLELossless,
        omit_empty_frames=False,
    )
    if header.get("LossyImageCompression") == "01":
        for name in LOSSY:
            if header.get(name) not in (None, ""):
                setattr(seg, name, header.get(name))
    if private:
        seg.CodingSchemeIdentificationSequence = [CodingSchemeIdentificationItem(PRIVATE_SCHEME, name="cxw_monai")]
    _place(seg.SharedFunctionalGroupsSequence[0], header)
    for frame in seg.PerFrameFunctionalGroupsSequence:  # highdicom before 0.24 names the only frame of the film
        for derivation in frame.get("DerivationImageSequence", []):
            for image in derivation.SourceImageSequence:
                image.pop("ReferencedFrameNumber", None)
    dimensions = result_uid("dimensions", identity)
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    return seg


def _place(groups: Dataset, header: Dataset) -> None:
    """Pixel measures and plane orientation, as described in the module."""
    measures, orientation = Dataset(), Dataset()
    spacing = next(filter(None, (_valid_spacing(header, name) for name in SPACING)), None)
    if spacing:
        measures.PixelSpacing = [DS(size, auto_format=True) for size in spacing]
    measures.SliceThickness = DS(1)
    orientation.ImageOrientationPatient = [DS(one) for one in _TO_THE_RIGHT_AND_DOWN]
    groups.PixelMeasuresSequence, groups.PlaneOrientationSequence = [measures], [orientation]


def _valid_spacing(header: Dataset, name: str) -> list[float] | None:
    """Spacing of rows and columns in mm, or None where it isn't two numbers above 0."""
    try:
        spacing = [float(size) for size in header.get(name) or ()]
    except (TypeError, ValueError, OverflowError):  # one number alone, or text
        return None
    return spacing if len(spacing) == 2 and all(np.isfinite(size) and size > 0 for size in spacing) else None


def _segments(names: Sequence[str], algorithm: SegAlgorithm) -> list[hd.seg.SegmentDescription]:
    """A description per structure, with its definition, its codes, its side and its colour."""
    identification = hd.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=Code("123110", "DCM", "Artificial Intelligence"),
        version=algorithm.version,
        source=algorithm.manufacturer,
    )
    descriptions = []
    for number, (name, colour) in enumerate(zip(names, structure_colours(names), strict=True), start=1):
        meaning = describe_structure(name)
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=Code(*meaning.category),
            segmented_property_type=Code(*meaning.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues(algorithm.type),
            algorithm_identification=identification,
        )
        description.RecommendedDisplayCIELabValue = _cielab(colour)
        if meaning.definition:
            description.SegmentDescription = meaning.definition
        modifiers = [hd.sr.CodedConcept(*code) for code in (meaning.side_code, meaning.modifier) if code]
        if modifiers:
            description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
        descriptions.append(description)
    return descriptions


def _cielab(rgb: tuple[int, int, int]) -> list[int]:
    """An sRGB colour of 0 to 255 as DICOM's three 16-bit numbers (PS3.3 C.10.7.1.1)."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    pixel = ImageCms.buildTransform(srgb, lab, "RGB", "LAB").apply(Image.new("RGB", (1, 1), rgb)).tobytes()
    lightness, a, b = np.frombuffer(pixel, dtype=np.uint8).astype(int)  # Pillow's a and b are signed bytes
    return [int(lightness) * 257, *(((int(value) + 128) % 256) * 257 for value in (a, b))]
