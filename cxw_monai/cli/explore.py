"""A local page on which a world model is tried out: masks, tokens, surprise, nearest films, and what it predicts.

CKPT, DATA, OUT and the preset are those of `report`, and what that has kept in OUT is used. A film is dropped on the
page (DICOM too) or taken from DATA; a crop or the exposure is moved, and the page shows what the network predicts. It
is served to this machine only and loads nothing from elsewhere. Uploads are deleted once they are read; Ctrl-C ends it.

It needs Gradio: pip install "cxw-monai[explore]"

Example: cxw-monai explore RUN/model.pt films/ report --set port=7861
"""

from __future__ import annotations

import argparse

from .report import add_seeing_arguments, run_seeing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    add_seeing_arguments(parser)


def run(a: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    return run_seeing(a, "exploring", "explore")
