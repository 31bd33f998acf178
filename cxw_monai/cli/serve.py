"""Answers an archive's films with DICOM SEG and SR.

Films come by STOW-RS or C-STORE, or are looked for in a folder or on a DICOMweb server; the results are sent back by
STOW-RS.

It listens on this machine's loopback; elsewhere it needs TLS and a token (CXW_SERVICE_TOKEN). User and password of the
DICOMweb server: CXW_DICOMWEB_USER, CXW_DICOMWEB_PASSWORD. Its extra: pip install "cxw-monai[service]".

Examples:
    cxw-monai serve queue/ --watch http://127.0.0.1:8042/dicom-web
    cxw-monai serve queue/ --model chexworld_segmentation --model RUN/model.pt --send-to http://127.0.0.1:8042/dicom-web
    cxw-monai serve queue/ --watch films/ --dicom-port 11112

Exit status: 0 ended by a signal, 2 wrong usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("folder", type=Path, help="folder of the queue; is made, readable by its user only")
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="a bundle (NAME, or NAME:WEIGHTS) or a file of weights; repeatable (default chexworld_segmentation)",
    )
    parser.add_argument(
        "--watch", action="append", default=[], metavar="PLACE", help="folder or DICOMweb server to look at; repeatable"
    )
    parser.add_argument("--send-to", metavar="URL", help="DICOMweb server for the results (default the watched one)")
    parser.add_argument("--host", default="127.0.0.1", help="address of HTTP (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8043, help="port of HTTP (default 8043)")
    parser.add_argument("--dicom-port", type=int, metavar="PORT", help="port of C-STORE on 127.0.0.1 (default none)")
    parser.add_argument("--ae-title", default="CXW_MONAI", help="for C-STORE (default CXW_MONAI)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--seg-type", default="auto", help="how a SEG stores masks: auto, binary or fractional")
    parser.add_argument("--workers", type=int, default=1, help="films that are answered at once (default 1)")
    parser.add_argument("--tries", type=int, default=20, help="of a film before it is given up (default 20)")
    parser.add_argument("--most-waiting", type=int, default=1000, help="films in the queue (default 1000)")
    parser.add_argument("--most-megabytes", type=int, default=512, help="of one request (default 512)")
    parser.add_argument(
        "--days", type=int, default=2, help="watched servers: studies of these last days; 0 for all (default 2)"
    )
    parser.add_argument("--poll-seconds", type=float, default=10.0, help="between looks at --watch (default 10)")


def run(a: argparse.Namespace) -> int:
    """Runs the service."""
    try:
        from cxw_monai.service.serve import ServiceSettings, serve
    except ModuleNotFoundError as error:
        raise ValueError(f'the service needs {error.name}: pip install "cxw-monai[service]"') from error

    settings = ServiceSettings(
        folder=a.folder,
        models=tuple(a.model or ("chexworld_segmentation",)),
        watch=tuple(a.watch),
        certificate=a.tls_cert,
        key=a.tls_key,
        **{
            name: getattr(a, name)
            for name in ("send_to", "host", "port", "dicom_port", "ae_title", "device", "seg_type", "workers", "tries")
            + ("most_waiting", "most_megabytes", "days", "poll_seconds")
        },
    )
    serve(settings)
    return 0
