"""Radiographs in, results out."""

from cxw_monai.io.radiograph import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.reader import LoadRadiographd, RadiographReader

__all__ = ["LoadRadiographd", "Radiograph", "RadiographError", "RadiographReader", "read_radiograph"]
