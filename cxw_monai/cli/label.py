"""Serves the segmentation bundle, and classifiers where there are weights of them, through MONAI Label.

It needs MONAI Label's own environment: `bash scripts/monailabel.sh` of a checkout makes one and runs this command in
it; with --selftest that script starts servers of its own and tries everything.

Examples:
    cxw-monai label films/
    cxw-monai label films/ --classifier RUN/model.pt
    cxw-monai label http://host:8042/dicom-web --port 8001
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("studies", nargs="?", help="folder of films, or address of a DICOMweb server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--app", type=Path, default=Path(".monailabel"), help="the app's folder (default .monailabel)")
    parser.add_argument("--bundle", default="chexworld_segmentation", help="name or folder of the bundle to serve")
    parser.add_argument("--model", type=Path, help="model to begin with (default the bundle's)")
    parser.add_argument(
        "--classifier",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="classifier to serve too; repeatable (default: the weights that the bundle holds)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")


def run(a: argparse.Namespace) -> int:
    """Becomes the server's process."""
    from cxw_monai.label.serve import classifier_files, lay_out, model_file, server_command, server_environment
    from cxw_monai.weights.bundles import find_bundle
    from cxw_monai.weights.segmenter import read_segmenter

    if not a.studies:
        raise ValueError("give the folder of the films, or the address of a DICOMweb server")
    bundle = find_bundle(a.bundle).resolve()
    app, model = a.app.resolve(), a.model or bundle / "models" / "model.pt"
    served = model_file(app) if model_file(app).exists() else model
    read_segmenter(served)  # before it is copied, or a server starts
    classifiers = classifier_files(a.classifier, find_bundle("chexworld_classification"))
    lay_out(app, model)
    command = server_command(app, a.studies, bundle, a.host, a.port, a.device, classifiers)
    os.execve(command[0], command, server_environment(app, a.host))
