"""A bundle's settings, checked before any work: their names, their values, and what a resumed run may change."""

from .check import check_settings
from .kinds import SettingError
from .run import settings_of_run

__all__ = ["SettingError", "check_settings", "settings_of_run"]
