"""Serves the segmentation bundle through MONAI Label."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cxw_monai.io.files.printable import printable
from cxw_monai.weights.bundles import BundleError, find_bundle
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.segmenter import read_segmenter

from .serve import lay_out, model_file, server_command, server_environment


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    epilog = "In a checkout, `scripts/monailabel.sh --selftest` starts servers of its own and tries everything."
    parser = argparse.ArgumentParser(prog="monailabel.sh", description=__doc__, epilog=epilog)
    parser.add_argument("studies", nargs="?", help="folder of films, or address of a DICOMweb server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--app", type=Path, default=Path(".monailabel"), help="the app's folder (default .monailabel)")
    parser.add_argument("--bundle", default="chexworld_segmentation", help="name or folder of the bundle to serve")
    parser.add_argument("--model", type=Path, help="model to begin with (default the bundle's)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    a = parser.parse_args(argv)
    if not a.studies:
        parser.error("give the folder of the films, or the address of a DICOMweb server")
    try:
        bundle = find_bundle(a.bundle).resolve()
        app, model = a.app.resolve(), a.model or bundle / "models" / "model.pt"
        served = model_file(app) if model_file(app).exists() else model
        read_segmenter(served)  # before it is copied, or a server starts
        lay_out(app, model)
    except (BundleError, CheckpointError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    command = server_command(app, a.studies, bundle, a.host, a.port, a.device)
    os.execve(command[0], command, server_environment(app, a.host))


if __name__ == "__main__":
    sys.exit(main())
