"""A bundle's settings: classes of them, gathered from its config and checked before any work."""

from .base import Settings
from .run import settings_of_run
from .types import SettingError, setting

__all__ = ["SettingError", "Settings", "setting", "settings_of_run"]
