"""Quality control of folders of radiographs: what would spoil a data set, before it does."""

from .check import check_radiographs
from .records import CHECKS, COLUMNS, FilmRecord, QualitySettings
from .report import write_csv, write_page
from .review import ImplausibleWarning, review

__all__ = [
    "CHECKS",
    "COLUMNS",
    "FilmRecord",
    "ImplausibleWarning",
    "QualitySettings",
    "check_radiographs",
    "review",
    "write_csv",
    "write_page",
]
