"""The real server as a process of the self-test, and a client of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

from cxw_monai.label.serve import lay_out, server_command, server_environment
from tests.helpers.small_classifier import save_classifier

__all__ = ["RunningServer", "free_port"]

_START_SECONDS = 180


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class RunningServer:
    """A server in a process of its own, ended when the context is left.

    Args:
        folder: of the app; the server's output is ``server.log`` in it.
        studies: folder of films, or a DICOMweb server's address.
        bundle: the segmentation bundle's folder.
        extra: further environment variables.
    """

    def __init__(self, folder: Path, studies: str, bundle: Path, extra: dict[str, str] | None = None) -> None:
        self.folder, self.log, self.port = folder, folder / "server.log", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        lay_out(folder, bundle / "models" / "model.pt")
        self.classifier = save_classifier(folder / "model" / "chexworld_classification.pt")
        classifiers = {"chexworld_classification": self.classifier}
        self._command = server_command(folder, studies, bundle, "127.0.0.1", self.port, "cpu", classifiers)
        threads = {"OMP_NUM_THREADS": "1"}  # threads that wait for each other on a busy machine take many times as long
        self._environment = server_environment(folder, "127.0.0.1") | threads | (extra or {})

    def __enter__(self) -> RunningServer:
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                self._command, stdout=stream, stderr=subprocess.STDOUT, env=self._environment, cwd=self.folder
            )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if requests.get(f"{self.url}/info/", timeout=60).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.3)
        self.__exit__(None, None, None)
        raise RuntimeError(f"the server did not start; see {self.log}:\n{self.text()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self.process.poll() is None and requests.get(f"{self.url}/info/", timeout=60).ok

    def rss_mib(self) -> float:
        """Its resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def text(self) -> str:
        """All that it logged."""
        logs = [self.log, *sorted((self.folder / "logs").glob("app.log*"))]
        return "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists())

    def uploads_left(self, patience: float = 10.0) -> list[str]:
        """Files that requests have left behind; the server deletes a result's a moment after its answer."""
        end = time.monotonic() + patience
        while (left := sorted(os.listdir(self.folder / "tmp"))) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def get(self, path: str, **how: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=600, **how)

    def infer(self, model: str, image: str | Path, output: str = "image", **params: Any) -> requests.Response:
        """Infer on an image of the datastore by its name, or on a file that is sent."""
        data: dict[str, Any] = {"data": {"params": json.dumps(params)}}
        query: dict[str, str] = {"output": output}
        if isinstance(image, Path):
            data["files"] = {"file": (image.name, image.read_bytes())}
        else:
            query["image"] = image
        return requests.post(f"{self.url}/infer/{model}", params=query, timeout=600, **data)

    def upload(self, file: Path, name: str | None = None) -> requests.Response:
        """Put a film into the datastore."""
        files = {"file": (file.name, file.read_bytes())}
        return requests.put(f"{self.url}/datastore/", params={"image": name or ""}, files=files, timeout=600)

    def put_model(self, model: str, file: Path) -> requests.Response:
        """Replace a model's file."""
        return requests.put(f"{self.url}/model/{model}", files={"file": (file.name, file.read_bytes())}, timeout=600)

    def save_label(self, image: str, file: Path, tag: str = "final", **params: Any) -> requests.Response:
        """Save a label as an annotation tool does."""
        return requests.put(
            f"{self.url}/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": json.dumps(params)},
            files={"label": (file.name, file.read_bytes())},
            timeout=600,
        )

    def post(self, path: str, **body: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=600)

    def train(self, model: str, **params: Any) -> dict[str, Any]:
        """Train, and wait for the end."""
        self.post(f"/train/{model}", **params).raise_for_status()
        while True:
            task = self.get("/train/").json()
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(0.5)
