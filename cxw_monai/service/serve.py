"""The service as a whole: queue, threads, network, logs."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from cxw_monai.io.files.printable import printable
from cxw_monai.io.results.folders import output_lock

from .answers import Answerer
from .archive import Archive
from .queue import FilmQueue
from .web import LOOPBACK, make_app
from .work import FolderWatch, Metrics, Threads, WebWatch, Worker

__all__ = ["TOKEN_VARIABLE", "ServiceSettings", "http_server", "serve"]

TOKEN_VARIABLE = "CXW_SERVICE_TOKEN"
"""Environment variable with the token that requests must bear."""

_USER, _PASSWORD = "CXW_DICOMWEB_USER", "CXW_DICOMWEB_PASSWORD"
_CONNECTIONS = 64
_PATIENCE = 60.0  # s that a film which is being answered has when the service is asked to end
_EXTRAS = ("film", "reason", "seconds", "results")


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What a service does.

    Attributes:
        folder: its queue; readable by its user only.
        models: see `Answerer`.
        watch: folders, and addresses of DICOMweb servers, whose films are taken.
        send_to: address of the DICOMweb server that gets the results; None for the watched one, if it is one, else the
            results stay in the folder.
        host, port: of HTTP.
        dicom_port: of C-STORE on 127.0.0.1; None for none.
        ae_title: for C-STORE.
        certificate, key: PEM files for TLS.
        device, seg_type: see `Answerer`.
        workers: films that are answered at once.
        tries: of a film.
        most_waiting: films in the queue.
        most_megabytes: of one request.
        days: a DICOMweb server is asked for films of studies of these last days; 0 for all.
        poll_seconds: between two looks at what is watched.

    Raises:
        ValueError: a number out of its range, or a host that isn't loopback without TLS and a token.
    """

    folder: Path
    models: tuple[str, ...]
    watch: tuple[str, ...] = ()
    send_to: str | None = None
    host: str = "127.0.0.1"
    port: int = 8043
    dicom_port: int | None = None
    ae_title: str = "CXW_MONAI"
    certificate: Path | None = None
    key: Path | None = None
    device: str = "cpu"
    seg_type: str = "auto"
    workers: int = 1
    tries: int = 20
    most_waiting: int = 1000
    most_megabytes: int = 512
    days: int = 2
    poll_seconds: float = 10.0

    def __post_init__(self) -> None:
        least = {"workers": 1, "tries": 1, "most_waiting": 1, "most_megabytes": 1, "days": 0, "poll_seconds": 0.1}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)!r}")
        if not 1 <= len(self.ae_title) <= 16:
            raise ValueError(f"ae_title must have 1 to 16 characters, got {self.ae_title!r}")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give both --tls-cert and --tls-key, or neither")
        if self.host not in LOOPBACK and (self.certificate is None or not self.token):
            raise ValueError(
                f"--host {self.host} is not this machine's loopback: give --tls-cert and --tls-key, and a token in "
                f"the environment variable {TOKEN_VARIABLE}"
            )
        if self.token is not None and (len(self.token) < 16 or not self.token.isascii()):
            raise ValueError(
                f"{TOKEN_VARIABLE} must have at least 16 ASCII characters; make one with: openssl rand -hex 32"
            )

    @property
    def token(self) -> str | None:
        """That requests must bear, from the environment."""
        return os.environ.get(TOKEN_VARIABLE) or None

    def archive(self) -> Archive | None:
        """Where results go."""
        watched = [one for one in self.watch if _is_address(one)]
        url = self.send_to or (watched[0] if watched else None)
        return Archive(url, _credentials()) if url else None


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _credentials() -> tuple[str, str] | None:
    user = os.environ.get(_USER)
    return (user, os.environ.get(_PASSWORD, "")) if user else None


class _JsonLines(logging.Formatter):
    """A log record as a line of JSON, without anything of a request or a header."""

    def format(self, record: logging.LogRecord) -> str:
        about = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))}
        about |= {"level": record.levelname, "logger": record.name, "event": printable(record.getMessage())}
        about |= {name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            about["error"] = record.exc_info[0].__name__  # its text may quote a header
        return json.dumps(about)


def _log_lines() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("pydicom", "highdicom", "pynetdicom", "dicomweb_client", "urllib3", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def serve(settings: ServiceSettings) -> None:
    """Run the service until it is asked to end (SIGINT, SIGTERM).

    Raises:
        ValueError: a model or a watched folder can't be used, or another service has the folder (OutputBusyError).
        OSError: the folder can't be written, or a port is in use.
    """
    _log_lines()
    with output_lock(settings.folder):
        answerer = Answerer(settings.models, settings.device, settings.seg_type)
        queue, metrics, threads = FilmQueue(settings.folder, settings.most_waiting), Metrics(), Threads()
        worker = Worker(queue, answerer, settings.archive(), metrics, settings.tries)
        looks = [_watch(place, settings, queue, metrics) for place in settings.watch]
        dimse = _dimse(settings, queue, metrics)
        app = make_app(
            queue,
            threads,
            metrics,
            token=settings.token,
            loopback=settings.host in LOOPBACK,
            max_bytes=settings.most_megabytes << 20,
        )
        for number in range(settings.workers):
            threads.start(f"worker {number}", worker.step, worker.IDLE_SECONDS)
        for look in looks:
            threads.start("watch", look.step, settings.poll_seconds)
        try:
            http_server(app, settings.host, settings.port, settings.certificate, settings.key).run()
        finally:
            if dimse is not None:
                dimse.shutdown()
            threads.stop(_PATIENCE)
            queue.close()


def _watch(place: str, settings: ServiceSettings, queue: FilmQueue, metrics: Metrics) -> FolderWatch | WebWatch:
    if _is_address(place):
        return WebWatch(Archive(place, _credentials()), queue, metrics, settings.days)
    return FolderWatch(Path(place), queue, metrics)


def _dimse(settings: ServiceSettings, queue: FilmQueue, metrics: Metrics):  # type: ignore[no-untyped-def]
    if settings.dicom_port is None:
        return None
    from .dimse import start_dimse

    return start_dimse(queue, metrics, settings.dicom_port, settings.ae_title)


def http_server(
    app: FastAPI, host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """An HTTP server with bounded connections, headers and waiting, which logs no request."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=64 << 10,
        http="h11",
        ws="none",
        lifespan="off",
        ssl_certfile=certificate,
        ssl_keyfile=None if key is None else str(key),
    )
    return uvicorn.Server(config)
