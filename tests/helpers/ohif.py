"""A clinic in small: Orthanc as the archive, OHIF as the viewer in a headless Chromium, all on the loopback address.

OHIF's files are those of the npm package `@ohif/app`; `CXW_OHIF` names the folder that it was unpacked to (`package`).
"""

from __future__ import annotations

import base64
import io
import json
import mimetypes
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image

ORTHANC, CHROMIUM, DRIVER = (shutil.which(name) for name in ("Orthanc", "chromium", "chromedriver"))
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DIST = Path(os.environ.get("CXW_OHIF", "/nowhere")) / "dist"


def missing(*, viewer: bool = False) -> str:
    """Why a test that needs these can't run; empty where it can."""
    if ORTHANC is None or not PLUGIN.is_file():
        return "needs Orthanc and its DICOMweb plugin (Debian: apt-get install orthanc orthanc-dicomweb)"
    if viewer and (CHROMIUM is None or DRIVER is None):
        return "needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)"
    if viewer and not DIST.is_dir():
        return "needs OHIF: npm pack @ohif/app@3.13.2, unpack it, and name its folder `package` in CXW_OHIF"
    return ""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def request(url: str, data: bytes | None = None, **headers: str) -> bytes:
    """The body of an answer; without any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with opener.open(urllib.request.Request(url, data, given), timeout=120) as answer:
        return bytes(answer.read())


def until(what: Any, seconds: float, pause: float = 0.5) -> Any:
    """The first truthy answer of a call.

    Raises:
        TimeoutError: there is none in that time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(pause)
    raise TimeoutError(f"{what} gave nothing in {seconds} s")


class Orthanc:
    """A running Orthanc.

    Attributes:
        url: of its HTTP server.
        web: of its DICOMweb service.
    """

    def __init__(self, url: str) -> None:
        self.url, self.web = url, f"{url}/dicom-web"

    def add(self, file: Path) -> None:
        request(f"{self.url}/instances", file.read_bytes())

    def instances(self, modality: str) -> list[dict[str, Any]]:
        """What it holds of a modality, in DICOM JSON."""
        found: list[dict[str, Any]] = json.loads(request(f"{self.web}/instances?Modality={modality}&limit=1000"))
        return found


@contextmanager
def orthanc(folder: Path, lua: str = "", servers: dict[str, list[str]] | None = None) -> Iterator[Orthanc]:
    """Run Orthanc with an empty archive, an optional script, and DICOMweb servers that it may send to."""
    port = free_port()
    config: dict[str, Any] = {
        **dict.fromkeys(("StorageDirectory", "IndexDirectory"), str(folder / "archive")),
        **{"Plugins": [str(PLUGIN)], "HttpPort": port, "HttpBindAddresses": ["127.0.0.1"], "DicomServerEnabled": False},
        **{"RemoteAccessAllowed": False, "AuthenticationEnabled": False, "StableAge": 1},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": servers or {}},
    }
    if lua:
        (folder / "script.lua").write_text(lua)
        config["LuaScripts"] = [str(folder / "script.lua")]
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        archive = Orthanc(f"http://127.0.0.1:{port}")
        until(lambda: request(f"{archive.url}/system"), 60, 0.2)
        yield archive
    finally:
        process.terminate()
        process.wait(30)


class _Viewer(BaseHTTPRequestHandler):
    """OHIF's files, and the archive's DICOMweb service under the same address."""

    protocol_version = "HTTP/1.1"
    archive, config = "", b""

    def log_message(self, *what: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/dicom-web"):
            return self._forward()
        file = DIST / path.lstrip("/")
        file = file if file.is_file() and ".." not in path else DIST / "index.html"
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._answer(200, kind, self.config if path == "/app-config.js" else file.read_bytes())

    def _forward(self) -> None:
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            asked = urllib.request.Request(
                self.archive + self.path, headers={"Accept": self.headers.get("Accept", "*/*")}
            )
            with opener.open(asked, timeout=120) as answer:
                self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, "text/plain", b"")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def viewer(archive: Orthanc, config: str) -> Iterator[str]:
    """Serve OHIF with an app-config; its address."""
    handler = type("Viewer", (_Viewer,), {"archive": archive.url, "config": config.encode()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Browser:
    """A headless Chromium behind its driver (W3C WebDriver)."""

    def __init__(self, driver: str, size: tuple[int, int]) -> None:
        self._driver = driver
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-proxy-server", "--hide-scrollbars"]
        flags += ["--window-size={},{}".format(*size), "--disable-dev-shm-usage"]
        options = {"goog:chromeOptions": {"binary": CHROMIUM, "args": flags}}
        self._session = f"/session/{self._ask('/session', {'capabilities': {'alwaysMatch': options}})['sessionId']}"

    def _ask(self, path: str, content: dict[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        return json.loads(request(self._driver + path, data, Content_Type="application/json"))["value"]

    def open(self, url: str) -> None:
        self._ask(f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self._ask(f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def picture(self) -> np.ndarray:
        """The page, uint8 `[H, W, 3]`."""
        content = base64.b64decode(self._ask(f"{self._session}/screenshot"))
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@contextmanager
def browser(size: tuple[int, int] = (1280, 800)) -> Iterator[Browser]:
    """Run Chromium, in a folder of its own with a short name: its socket's path has at most 107 characters."""
    with TemporaryDirectory(prefix="cxw", ignore_cleanup_errors=True) as folder:
        yield from _browser(folder, size)


def _browser(folder: str, size: tuple[int, int]) -> Iterator[Browser]:
    port = free_port()
    environment = {**os.environ, "HOME": folder, "TMPDIR": folder}
    process = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, env=environment)
    try:
        until(lambda: request(f"http://127.0.0.1:{port}/status"), 30, 0.2)
        yield Browser(f"http://127.0.0.1:{port}", size)
    finally:
        try:
            request(f"http://127.0.0.1:{port}/shutdown")
        except OSError:
            process.terminate()
        process.wait(30)
