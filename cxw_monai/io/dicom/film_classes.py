"""Which DICOM objects are radiographs: projections of X-rays, one picture each.

A class of the standard is a radiograph if it is in the list below; slices, volumes, segmentations, doses, reports and
whatever the standard adds are not. For a secondary capture, a vendor's private class or a missing class, Modality
decides: all but the names of other things pass, since old files have empty or home-made modalities.

Portal images of radiotherapy (RT Image) are left out: they are made with megavolts, or calculated.

Sources: DICOM PS3.4 B.5 (storage classes), PS3.3 C.7.3.1.1.1 (modalities).
"""

from __future__ import annotations

from pydicom.uid import UID

from cxw_monai.io.radiograph import UnusableError

__all__ = ["FILM_CLASSES", "FILM_MODALITIES", "refuse_unless_film"]

FILM_MODALITIES = ("CR", "DX", "RG")
"""Modalities of series of films: computed, digital, and scanned radiographs."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURES = frozenset(
    _STORAGE + part
    for part in (
        "7",  # secondary capture
        "7.2",  # multi-frame, grey bytes
        "7.3",  # multi-frame, grey words
        "7.4",  # multi-frame, colour: refused as such
    )
)
FILM_CLASSES = _CAPTURES | frozenset(
    _STORAGE + part
    for part in (
        "1",  # computed radiography
        "1.1",  # digital X-ray, for presentation
        "1.1.1",  # and for processing
        "1.2",  # mammography
        "1.2.1",
        "1.3",  # intra-oral
        "1.3.1",
        "12.1",  # angiography
        "12.1.1",  # enhanced
        "12.2",  # radiofluoroscopy
        "12.2.1",  # enhanced
        "13.1.4",  # breast projection
        "13.1.5",
    )
)
"""UIDs of the storage classes whose objects are read as films."""

_STANDARD = "1.2.840.10008."
_NO_FILM = {  # as Modality
    "ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CD", "CFM", "CP", "CS", "CT", "CTPROTOCOL", "DD", "DG", "DM",
    "DMS", "DOC", "EC", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FA", "FID", "FS", "GM", "HD", "IOL", "IVOCT",
    "IVUS", "KER", "KO", "KEY", "LEN", "LP", "LS", "M3D", "MA", "MR", "MS", "NM", "OAM", "OCT", "OP", "OPM", "OPR",
    "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "PLAN", "POS", "PR", "PT", "PET", "REG", "RESP", "RTDOSE", "RTIMAGE",
    "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "ST",
    "STAIN", "TEXTUREMAP", "TG", "US", "VA", "VL", "XAPROTOCOL", "XC",
}  # fmt: skip
_REMEDY = "leave it out; a film that was filed so must be exported as CR, DX or secondary capture, or as PNG"


def refuse_unless_film(sop_class: str, modality: str) -> None:
    """Refuse a DICOM object that is no radiograph, by its class and modality, empty where it has none.

    Raises:
        UnusableError: it is something else, which the message names.
    """
    kind, modality = UID(sop_class), modality.strip().upper()
    if kind.startswith(_STANDARD) and kind not in FILM_CLASSES:
        name = kind.name if kind.name != kind else f"SOP class {kind}"
        raise UnusableError(f"{name}, which is no radiograph", _REMEDY)
    if modality in _NO_FILM and (kind in _CAPTURES or kind not in FILM_CLASSES):
        what = "a secondary capture of " if kind in _CAPTURES else "of "
        raise UnusableError(f"{what}modality {modality}, which is no radiograph", _REMEDY)
