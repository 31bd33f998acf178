"""Settings as a class: each named once, with its type, range, unit, default, and what a resumed run may change."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from typing_extensions import Self

from .gather import gather
from .types import is_null

__all__ = ["Settings"]


class Settings(BaseModel):
    """Base of the tasks' settings.

    Values may be texts: numbers, flags and lists as YAML or a command line give them. See `cxw_monai.settings.types`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _null(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """What means null, in a setting that may be; `None` is such a text too where it is nothing else."""
        optional = type(None) in get_args(cls.model_fields[str(info.field_name)].annotation)
        if optional and is_null(value):
            return None
        try:
            return read(value)
        except ValidationError:
            if optional and value == "None":
                return None
            raise

    def pick(self, *names: str, **others: str) -> dict[str, Any]:
        """Settings as keyword arguments, under their own names or, of `argument="setting"`, others."""
        return {
            argument: getattr(self, name) for argument, name in (dict(zip(names, names, strict=True)) | others).items()
        }

    @classmethod
    def of_config(cls) -> Self:
        """The settings of the config that calls this, for its `settings` entry; see `gather`."""
        return gather(cls)
