"""Lays out the app's folder and starts MONAI Label's server on it: ``python -m cxw_monai.label.serve STUDIES``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

__all__ = ["lay_out", "main", "server_command", "server_environment"]

LOOPBACK = ("127.0.0.1", "localhost")
PROJECT = Path(__file__).resolve().parents[2]
_MAIN = '"""Found by MONAI Label."""\n\nfrom cxw_monai.label.app import CxwLabelApp  # noqa: F401\n'


def lay_out(app: Path, model: Path) -> None:
    """Make the app's folder, or complete it; a model that was trained there stays.

    Args:
        app: the folder.
        model: the model to begin with.

    Raises:
        FileNotFoundError: no such model.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model; give --model, the model.pt of a segmentation run")
    for name in ("model", "logs", "tmp", "runs"):
        (app / name).mkdir(parents=True, exist_ok=True)
    os.chmod(app / "tmp", 0o700)
    for left in (app / "tmp").glob("tmp*"):  # of a server that was killed
        if left.is_file():
            left.unlink()
    (app / "main.py").write_text(_MAIN, encoding="utf-8")
    (app / "logs" / "logging.json").write_text(json.dumps(_logging(app / "logs" / "app.log"), indent=2))
    mine = app / "model" / "chexworld_segmentation.pt"
    if not mine.exists():
        shutil.copyfile(model, mine)


def _logging(file: Path) -> dict[str, object]:
    """Logging without MONAI Label's lines of level INFO, which quote requests and header attributes."""
    rotating = {"class": "logging.handlers.RotatingFileHandler", "filename": str(file), "maxBytes": 10_000_000}
    plain = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
    handlers = {
        "console": {"class": "logging.StreamHandler", "formatter": "plain"},
        "file": {**rotating, "backupCount": 5, "encoding": "utf-8", "formatter": "plain"},
    }
    quiet = ("monailabel", "pydicom", "highdicom", "dicomweb_client", "urllib3", "uvicorn.access", "fontTools")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": plain},
        "handlers": handlers,
        "root": {"level": "INFO", "handlers": list(handlers)},
        "loggers": {name: {"level": "WARNING"} for name in quiet},
    }


def server_environment(app: Path, host: str) -> dict[str, str]:
    """The server's environment: no session store, uploads in a folder of its own.

    A server that listens on the loopback address answers only those who address it by that, so that no name that a web
    page makes up for this machine reaches it; ``CXW_LABEL_HOSTS`` names others (a proxy's).
    """
    settings = {
        "MONAI_LABEL_SESSIONS": "false",
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_TASKS_SCORING": "false",
        "TMPDIR": str(app / "tmp"),
    }
    hosts = ",".join(LOOPBACK) if host in LOOPBACK else "*"
    settings["CXW_LABEL_HOSTS"] = os.environ.get("CXW_LABEL_HOSTS", hosts)
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def server_command(app: Path, studies: str, bundle: Path, host: str, port: int, device: str) -> list[str]:
    """The command that starts the server."""
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", studies]
    command += ["--host", host, "--port", str(port), "--log_config", str(app / "logs" / "logging.json")]
    command += ["--uvicorn_app", "cxw_monai.label.web:app"]
    return [*command, "--conf", "bundle", str(bundle.resolve()), "--conf", "device", device]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="monailabel.sh", description=__doc__)
    parser.add_argument("studies", nargs="?", help="folder of films, or address of a DICOMweb server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--app", type=Path, help="the app's folder (default .monailabel in the project)")
    parser.add_argument("--bundle", type=Path, default=PROJECT / "bundles" / "chexworld_segmentation")
    parser.add_argument("--model", type=Path, help="model to begin with (default the bundle's)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--selftest", action="store_true", help="start a server on made-up studies, try it, stop it")
    a = parser.parse_args(argv)
    if a.selftest:
        from cxw_monai.label.selftest import run_selftest

        return run_selftest(a.bundle)
    if not a.studies:
        parser.error("give the folder of the films, or the address of a DICOMweb server")
    app = (a.app or PROJECT / ".monailabel").resolve()
    try:
        lay_out(app, a.model or a.bundle / "models" / "model.pt")
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = server_command(app, a.studies, a.bundle, a.host, a.port, a.device)
    os.execve(command[0], command, server_environment(app, a.host))


if __name__ == "__main__":
    sys.exit(main())
