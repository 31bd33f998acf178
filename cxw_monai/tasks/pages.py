"""Self-contained HTML pages: a template, and pictures inside of it."""

from __future__ import annotations

import base64
import io
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from cxw_monai.io.files.atomic import atomic_file

__all__ = ["data_url", "figure_url", "write_html"]


def write_html(path: str | PathLike[str], template: Path, **values: Any) -> None:
    """Write a page from a jinja2 template, whose values are escaped."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        template.read_text(encoding="utf-8")
    )
    html = page.render(**values)
    with atomic_file(path, "w", encoding="utf-8") as stream:
        stream.write(html)


def data_url(content: bytes, kind: str) -> str:
    """A picture as the source of an `img`; `kind` is png or jpeg."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def figure_url(figure: Figure, kind: str = "png", dpi: int = 100) -> str:
    """A figure as the source of an `img`: PNG, or JPEG, which films take less room in."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=dpi, pil_kwargs={"quality": 82} if kind == "jpeg" else None)
    return data_url(stream.getvalue(), kind)
