"""Radiographs in, results out."""

from cxw_monai.io.radiograph import Radiograph, RadiographError, read_radiograph

__all__ = ["Radiograph", "RadiographError", "read_radiograph"]
