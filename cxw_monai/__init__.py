"""Self-supervised world models of radiographs as MONAI bundles."""

from typing import Any

from cxw_monai._moved import install as let_old_paths_be_found
from cxw_monai.io.files.printable import escape_log_records

__version__ = "0.2.0"

escape_log_records()
let_old_paths_be_found()


def __getattr__(name: str) -> Any:
    if name == "load":  # torch and MONAI take seconds to import: when they are needed
        from cxw_monai.inference.api import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
