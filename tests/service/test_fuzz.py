"""What a stranger may send: damaged films and requests. None ends the service, none leaves a file outside its folder.

``CXW_SERVICE_FUZZ_COUNT`` sets how many requests (100), ``CXW_FUZZ_START`` the number of the first.
"""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="comes with the extra `service`")
pytest.importorskip("dicomweb_client", reason="comes with the extra `service`, on Python 3.11 or later")
requests = pytest.importorskip("requests", reason="comes with the extra `service`")

from cxw_monai.service import answers  # noqa: E402
from cxw_monai.service.answers import Answerer  # noqa: E402
from cxw_monai.service.queue import FilmQueue  # noqa: E402
from cxw_monai.service.work import Metrics, Worker  # noqa: E402
from tests.helpers.damaged_files import Seed, mutate  # noqa: E402
from tests.helpers.small_classifier import save_classifier  # noqa: E402
from tests.service.conftest import files_below, multipart, uid_of  # noqa: E402
from tests.service.test_web import TOKEN, served  # noqa: E402

COUNT, START = int(os.environ.get("CXW_SERVICE_FUZZ_COUNT", "100")), int(os.environ.get("CXW_FUZZ_START", "0"))
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")
ONE = 1_000_000
EXPECTED = {200, 202, 400, 401, 404, 405, 408, 409, 413, 415, 422, 431, 503}
GIVEN = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {TOKEN}"}


def request_of(number: int, seeds: list[Seed]) -> bytes:
    """A request of damaged films, itself damaged every other time."""
    rng = random.Random(number)
    films = []
    for part in range(rng.choice((1, 1, 2))):
        damaged = mutate(seeds, 7 * number + part).content  # with a UID of its own, of the same length
        films.append(damaged.replace(uid_of(ONE).encode(), uid_of(ONE + 7 * number + part + 1).encode()))
    body, kind = multipart(*films) if len(films) > 1 or rng.random() < 0.5 else (films[0], "application/dicom")
    path = rng.choice(("/studies",) * 8 + ("/studies/1.2", "/films/1.2.5.1", "/films?state=%00", "/../../etc/passwd"))
    headers = {**GIVEN, "Content-Type": kind, "Content-Length": str(len(body))}
    method = rng.choice(("POST",) * 8 + ("GET", "PUT"))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    whole = bytearray(head.encode() + b"\r\n" + body)
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 3, 20))):
            at = rng.randrange(min(len(whole), rng.choice((400, len(whole)))))
            whole[at : at + rng.choice((0, 1, 1, 8))] = rng.randbytes(rng.choice((0, 1, 1, 8)))
    return bytes(whole)


def status_of(url: str, sent: bytes) -> int:
    """The answer's status; 0 where there is none, since the request isn't whole or not HTTP."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=2) as one:
        try:
            one.sendall(sent)
            line = one.makefile("rb").readline()
        except OSError:
            return 0
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.slow
def test_no_request_ends_the_service_or_leaves_a_file_elsewhere(tmp_path, film, monkeypatch):
    seeds = [Seed(f"{at}.dcm", film(ONE, syntax=syntax)) for at, syntax in enumerate(SYNTAXES)]
    answerer = Answerer([str(save_classifier(tmp_path / "model.pt"))])
    monkeypatch.setattr("cxw_monai.service.web._CHUNK_SECONDS", 0.5)
    monkeypatch.setattr(answers, "film_doubts", lambda film: [])  # noise is worked on, too
    queue = FilmQueue(tmp_path / "q", most=10**6)
    before, statuses = tree(tmp_path), Counter[int]()
    with served(queue, TOKEN, max_bytes=1 << 16) as url:
        for number in range(START, START + COUNT):
            statuses[status_of(url, request_of(number, seeds))] += 1
        assert requests.get(f"{url}/health").status_code == 200
    print(dict(statuses))
    assert set(statuses) <= EXPECTED | {0} and 0.1 * COUNT < statuses[200] < 0.9 * COUNT
    assert all(name.startswith("films/") for name in files_below(queue.folder))
    worker = Worker(queue, answerer, None, Metrics(), 2)
    queue._rows("UPDATE films SET due = 0")
    while worker.step():
        queue._rows("UPDATE films SET due = 0 WHERE state = 'waiting'")
    states = queue.counts()
    print(states)
    assert states["waiting"] == 0 and states["done"] > 0
    assert not [
        one for one in queue.listed("dead") if "unexpectedly" in one.reasons[0] and "reading" not in one.reasons[0]
    ]
    elsewhere = {name for name in tree(tmp_path) - before if not name.startswith("q/")}
    assert elsewhere == set()
