"""``python -m monai.bundle run inference`` of a bundle, which the verbs `segment`, `classify` and `embed` stand for."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import name_and_value

__all__ = ["add_inference_arguments", "run_bundle", "run_command", "run_inference", "set_argument"]


def add_inference_arguments(parser: argparse.ArgumentParser, bundle: str) -> None:
    """Adds the arguments that these verbs have."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--ckpt", type=Path, help="weights of a run, or the name of shipped ones (default: model)")
    parser.add_argument("--bundle", default=bundle, help=f"name or folder of the bundle (default {bundle})")
    set_argument(parser)


def set_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`."""
    parser.add_argument(
        "--set",
        type=name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the bundle; repeatable",
    )


def run_inference(a: argparse.Namespace, configs: Sequence[str], settings: Mapping[str, object]) -> int:
    """Runs a bundle's inference in a process of its own, whose exit status is returned.

    Args:
        a: arguments of `add_inference_arguments`.
        configs: files of the bundle, later ones first.
        settings: the bundle's settings that the verb gives.
    """
    from cxw_monai.weights.bundles import find_bundle

    given = {**settings, **({"ckpt": _weights(a.ckpt, find_bundle(a.bundle).resolve())} if a.ckpt else {})}
    return run_bundle(a, "inference", configs, given)


def run_bundle(a: argparse.Namespace, run_id: str, configs: Sequence[str], settings: Mapping[str, object]) -> int:
    """Runs a command of a bundle in a process of its own, whose exit status is returned.

    Args:
        a: with `bundle` and `set`.
        run_id: what MONAI is to run.
        configs, settings: see `run_inference`.
    """
    from cxw_monai.weights.bundles import find_bundle

    bundle = find_bundle(a.bundle).resolve()
    listed = ",".join(f"'{bundle / name}'" for name in configs)
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", f"[{listed}]"]
    given = {"bundle_root": bundle, **settings, **dict(a.set)}
    command += [text for name, value in given.items() for text in (f"--{name}", str(value))]
    return run_command(command)


def run_command(command: Sequence[str]) -> int:
    """Runs a program to its end; its exit status. A SIGTERM is passed on: it would go on alone."""
    with subprocess.Popen(command) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)


def _weights(ckpt: Path, bundle: Path) -> Path:
    """A file or folder, or that of shipped weights by their name, which has no folder and no ending."""
    if ckpt.exists() or ckpt.suffix or ckpt.name != str(ckpt):
        return ckpt
    from cxw_monai.weights.kinds import named_weights

    return named_weights(bundle, ckpt.name)
