"""Lays out the app's folder, and the command that starts MONAI Label's server on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxw_monai.weights.classifier import read_settings
from cxw_monai.weights.kinds import weights_file

__all__ = ["classifier_files", "lay_out", "model_file", "server_command", "server_environment"]

CLASSIFICATION = "chexworld_classification"
LOOPBACK = ("127.0.0.1", "localhost")
_IMPORTED_FROM = Path(__file__).resolve().parents[2]
_MAIN = '"""Found by MONAI Label."""\n\nfrom cxw_monai.label.app import CxwLabelApp  # noqa: F401\n'


def lay_out(app: Path, model: Path) -> None:
    """Make the app's folder, or complete it; a model that was trained there stays.

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
    if not model_file(app).exists():
        shutil.copyfile(model, model_file(app))


def model_file(app: Path) -> Path:
    """The model in use."""
    return app / "model" / "chexworld_segmentation.pt"


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
    paths = [str(_IMPORTED_FROM), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def classifier_files(given: Sequence[Path], bundle: Path) -> dict[str, Path]:
    """Classifiers to serve, by the name of their task.

    Args:
        given: their files, such as `model.pt` of a run; none for the weights that the bundle holds.
        bundle: the classification bundle's folder.

    Returns:
        A `model.pt` is `chexworld_classification`, another file `chexworld_classification_<its name>`.

    Raises:
        ValueError: two of one name, or a name that is none in an address.
        CheckpointError: a file that is no classifier.
    """
    found: dict[str, Path] = {}
    for file in map(weights_file, given or sorted((bundle / "models").glob("*.pt"))):
        name = CLASSIFICATION if file.stem == "model" else f"{CLASSIFICATION}_{file.stem}"
        if name in found or not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"{file}: classifiers are served by their file's name, of letters, digits, '_' and '-', "
                             "each another; rename one")  # fmt: skip
        read_settings(file)
        found[name] = file.resolve()
    return found


def server_command(
    app: Path, studies: str, bundle: Path, host: str, port: int, device: str, classifiers: Mapping[str, Path]
) -> list[str]:
    """The command that starts the server."""
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", studies]
    command += ["--host", host, "--port", str(port), "--log_config", str(app / "logs" / "logging.json")]
    command += ["--uvicorn_app", "cxw_monai.label.web:app"]
    files = json.dumps({name: str(file) for name, file in classifiers.items()})
    conf = {"bundle": str(bundle.resolve()), "device": device, "classifiers": files}
    return [*command, *(text for name, value in conf.items() for text in ("--conf", name, value))]
