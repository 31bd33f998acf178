"""``python -m monai.bundle run inference`` of a bundle, which the verbs `segment`, `classify` and `embed` stand for."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import name_and_value

__all__ = ["add_inference_arguments", "run_inference"]


def add_inference_arguments(parser: argparse.ArgumentParser, bundle: str) -> None:
    """Adds the arguments that these verbs have."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--ckpt", type=Path, help="weights of a run, or the name of shipped ones (default: model)")
    parser.add_argument("--bundle", default=bundle, help=f"name or folder of the bundle (default {bundle})")
    parser.add_argument(
        "--set",
        type=name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the bundle's inference; repeatable",
    )


def run_inference(a: argparse.Namespace, configs: Sequence[str], settings: Mapping[str, object]) -> int:
    """Runs a bundle's inference in a process of its own, whose exit status is returned.

    Args:
        a: arguments of `add_inference_arguments`.
        configs: files of the bundle, later ones first.
        settings: the bundle's settings that the verb gives.
    """
    from cxw_monai.weights.bundles import find_bundle

    bundle = find_bundle(a.bundle).resolve()
    listed = ",".join(f"'{bundle / name}'" for name in configs)
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", f"[{listed}]"]
    given = {"bundle_root": bundle, **settings, **({"ckpt": _weights(a.ckpt, bundle)} if a.ckpt else {}), **dict(a.set)}
    command += [text for name, value in given.items() for text in (f"--{name}", str(value))]
    try:
        return subprocess.run(command).returncode
    except KeyboardInterrupt:
        return 130


def _weights(ckpt: Path, bundle: Path) -> Path:
    """A file or folder, or that of shipped weights by their name, which has no folder and no ending."""
    if ckpt.exists() or ckpt.suffix or ckpt.name != str(ckpt):
        return ckpt
    from cxw_monai.weights.kinds import named_weights

    return named_weights(bundle, ckpt.name)
