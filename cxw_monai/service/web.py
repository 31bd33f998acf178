"""The service over HTTP: STOW-RS for films, the state of each, health and metrics.

::

    POST /studies, /studies/STUDY    STOW-RS: films as multipart/related of application/dicom, or one application/dicom
    GET  /films/UID                  a film's state, by its SOP Instance UID
    GET  /films?state=dead           the latest films of a state
    POST /films/UID/retry            let a dead film wait again
    GET  /health                     200, or 503 where a thread has ended; no token is asked for
    GET  /metrics                    in Prometheus' text format

FastAPI and uvicorn, since MONAI Label brings them for the label server: TLS, limits of connections and the parsing of
requests are theirs. A request's body goes to a file of the queue's folder as it comes, so that memory doesn't depend on
its size.

Sources: DICOM PS3.18 10.5 (store transaction), https://dicom.nema.org/medical/dicom/current/output/chtml/part18/sect_10.5.html;
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
import hmac
import mmap
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from cxw_monai.io import RadiographError
from cxw_monai.io.files.printable import printable

from .intake import receive
from .queue import STATES, Film, FilmQueue, FullError
from .stow import MULTIPART, SINGLE, parts, stow_answer
from .work import Metrics, Threads

__all__ = ["LOOPBACK", "make_app"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_UPLOADS = 4  # requests that may send films at once
_CHUNK_SECONDS = 30.0  # a client may take between two pieces of a body
_STATUS = {"done": 200, "partly": 202, "failed": 409}


def make_app(
    queue: FilmQueue, threads: Threads, metrics: Metrics, *, token: str | None, loopback: bool, max_bytes: int
) -> FastAPI:
    """The web application.

    Args:
        queue, threads, metrics: the service's.
        token: that requests must bear; None for none.
        loopback: answer only those who address the server by a name of this machine's loopback, so that no name that a
            web page makes up for it reaches it.
        max_bytes: of a request's body.
    """
    app = FastAPI(title="cxw_monai", docs_url=None, redoc_url=None, openapi_url=None)
    uploads = asyncio.Semaphore(_UPLOADS)

    @app.middleware("http")
    async def bearer(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if token is None or request.url.path == "/health" or hmac.compare_digest(given, f"Bearer {token}".encode()):
            return await call(request)
        return JSONResponse({"detail": "give the service's token: Authorization: Bearer TOKEN"}, 401)

    if loopback:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK[:2]))

    @app.post("/studies")
    @app.post("/studies/{study}")
    async def store(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() not in (MULTIPART, SINGLE):
            raise HTTPException(415, f"send films as {MULTIPART} of {SINGLE}, or one as {SINGLE}")
        async with uploads:
            handle, name = tempfile.mkstemp(dir=queue.incoming, suffix=".body")
            try:
                with os.fdopen(handle, "wb") as stream:
                    await _save_body(request, stream, max_bytes)
                content, state = await run_in_threadpool(_take, queue, metrics, Path(name), kind)
            finally:
                Path(name).unlink(missing_ok=True)
        return JSONResponse(content, _STATUS[state], media_type="application/dicom+json")

    @app.get("/films/{uid}")
    def film(uid: str) -> dict[str, Any]:
        found = queue.find(uid)
        if found is None:
            raise HTTPException(404, "no such film was sent here")
        return _described(found)

    @app.get("/films")
    def films(state: str = "dead") -> list[dict[str, Any]]:
        if state not in STATES:
            raise HTTPException(422, f"state must be one of {', '.join(STATES)}")
        return [_described(one) for one in queue.listed(state)]

    @app.post("/films/{uid}/retry")
    def retry(uid: str) -> dict[str, str]:
        if not queue.revive(uid):
            raise HTTPException(404, "no such dead film")
        return {"state": "waiting"}

    @app.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"status": "ok" if threads.alive else "failed"}, 200 if threads.alive else 503)

    @app.get("/metrics")
    def measured() -> Response:
        return Response(_metrics(queue, metrics), media_type="text/plain; version=0.0.4")

    return app


async def _save_body(request: Request, stream: Any, max_bytes: int) -> None:
    """A request's body into a file.

    Raises:
        HTTPException: it is too large, too slow, or breaks off.
    """
    chunks, size = request.stream().__aiter__(), 0
    while True:
        try:
            chunk = await asyncio.wait_for(chunks.__anext__(), _CHUNK_SECONDS)
        except StopAsyncIteration:
            return
        except (asyncio.TimeoutError, ClientDisconnect):
            raise HTTPException(408, "the body did not come") from None
        size += len(chunk)
        if size > max_bytes:
            raise HTTPException(413, f"a request may have {max_bytes} bytes; send fewer films at once")
        stream.write(chunk)


def _take(queue: FilmQueue, metrics: Metrics, body: Path, kind: str) -> tuple[dict[str, Any], str]:
    """Take the films of a request: the answer, and whether they are ``done``, ``partly`` or ``failed``."""
    stored, reasons = [], []
    for part in _parts(body, kind):
        try:
            found = receive(queue, part)
        except RadiographError as error:
            metrics.add("refused_objects")
            reasons.append(f"{error.reason}; {error.remedy}")
        except FullError:
            raise HTTPException(503, "too many films wait; send again later", {"Retry-After": "60"}) from None
        else:
            metrics.add("received", found.new)
            stored.append((found.sop_class, found.uid))
    return stow_answer(stored, reasons), ("partly" if stored else "failed") if reasons else "done"


def _parts(body: Path, kind: str) -> Iterator[memoryview]:
    """The objects of a request's body, of which all are there before the first is given."""
    with body.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            raise HTTPException(400, "no body")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                found = list(parts(content, kind))
            except ValueError as error:
                raise HTTPException(400, str(error)) from error
            for start, end in found:
                with memoryview(content) as view, view[start:end] as part:
                    yield part


def _described(film: Film) -> dict[str, Any]:
    about = dict(vars(film))
    about["reasons"] = [printable(reason) for reason in film.reasons]
    return about


def _metrics(queue: FilmQueue, metrics: Metrics) -> str:
    lines = ["# TYPE cxw_films gauge"]
    lines += [f'cxw_films{{state="{state}"}} {count}' for state, count in queue.counts().items()]
    for name, count in metrics.counts.items():
        if name != "answers":
            lines += [f"# TYPE cxw_{name}_total counter", f"cxw_{name}_total {count}"]
    lines += ["# TYPE cxw_answer_seconds summary", f"cxw_answer_seconds_sum {metrics.seconds:.3f}"]
    lines += [f"cxw_answer_seconds_count {metrics.counts['answers']}"]
    if (resident := _resident_bytes()) is not None:
        lines += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {resident}"]
    return "\n".join(lines) + "\n"


def _resident_bytes() -> int | None:
    """Memory of this process; None where the system doesn't say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
