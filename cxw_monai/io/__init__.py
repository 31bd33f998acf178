"""Radiographs in, results out.

- :mod:`~cxw_monai.io.read`: :func:`read_radiograph`, any supported file to a :class:`Radiograph`
  (:mod:`~cxw_monai.io.radiograph`, with the one error, :class:`RadiographError`). Choices of grey scale:
  :mod:`~cxw_monai.io.scaling`. Where an array's pixels lie on the stored grid: :mod:`~cxw_monai.io.pixel_map`.
- :mod:`~cxw_monai.io.dicom` and :mod:`~cxw_monai.io.formats` (PNG, JPEG, TIFF, NIfTI, NRRD): one reader per format.
- :mod:`~cxw_monai.io.monai_reader`, :mod:`~cxw_monai.io.monai_writers`: the same for MONAI's ``LoadImage`` and
  ``SaveImage``.
- :mod:`~cxw_monai.io.results`: masks, DICOM SEG, overlays, and the names, marks and locks of result folders.
  Structures' codes, sides and colours: :mod:`~cxw_monai.io.structures`.
- :mod:`~cxw_monai.io.files`: files of any kind that are written whole, read strictly, and shown safely in messages.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .monai_reader import LoadRadiographd, RadiographReader
    from .radiograph import Radiograph, RadiographError
    from .read import read_radiograph

__all__ = ["LoadRadiographd", "Radiograph", "RadiographError", "RadiographReader", "read_radiograph"]

_MODULES = {
    "LoadRadiographd": "monai_reader",
    "RadiographReader": "monai_reader",
    "Radiograph": "radiograph",
    "RadiographError": "radiograph",
    "read_radiograph": "read",
}


def __getattr__(name: str) -> Any:
    # torch and MONAI take seconds to import: what needs them is imported when it is asked for.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
