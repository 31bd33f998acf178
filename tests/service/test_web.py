"""The service over HTTP, through uvicorn on the loopback address."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("uvicorn", reason="comes with the extra `service`")
pytest.importorskip("dicomweb_client", reason="comes with the extra `service`, on Python 3.11 or later")
requests = pytest.importorskip("requests", reason="comes with the extra `service`")

from cxw_monai.service.health import healthy  # noqa: E402
from cxw_monai.service.intake import receive  # noqa: E402
from cxw_monai.service.queue import FilmQueue  # noqa: E402
from cxw_monai.service.serve import http_server  # noqa: E402
from cxw_monai.service.web import make_app  # noqa: E402
from cxw_monai.service.work import Metrics, Threads  # noqa: E402
from tests.helpers.ohif import free_port, until  # noqa: E402
from tests.service.conftest import files_below, multipart, uid_of  # noqa: E402

TOKEN = "a-token-of-many-characters"
DICOM = {"Content-Type": "application/dicom"}


@contextmanager
def served(
    queue: FilmQueue, token: str | None = None, max_bytes: int = 1 << 20, tls: tuple[Path, ...] = ()
) -> Iterator[str]:
    port = free_port()
    app = make_app(queue, Threads(), Metrics(), token=token, loopback=True, max_bytes=max_bytes)
    server = http_server(app, "127.0.0.1", port, *tls)
    server.install_signal_handlers = lambda: None
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, 30, 0.02)
        yield f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def queue(tmp_path) -> FilmQueue:
    return FilmQueue(tmp_path / "q", most=3)


@pytest.fixture
def url(queue) -> Iterator[str]:
    with served(queue) as url:
        yield url


def test_films_are_stored_by_stow(queue, url, film):
    body, kind = multipart(film(1), film(2))
    for _ in range(2):  # what is known is stored too
        answer = requests.post(f"{url}/studies", body, headers={"Content-Type": kind})
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom+json"
        stored = answer.json()["00081199"]["Value"]
        assert [one["00081155"]["Value"] for one in stored] == [[uid_of(1)], [uid_of(2)]]
    assert requests.post(f"{url}/studies/1.2.3", film(3), headers=DICOM).status_code == 200
    assert queue.counts()["waiting"] == 3 and len(files_below(queue.folder)) == 3


def test_what_is_no_film_fails_beside_the_others(queue, url, film):
    body, kind = multipart(film(1), b"no DICOM", film(2, Modality="CT"))
    answer = requests.post(f"{url}/studies", body, headers={"Content-Type": kind})
    assert answer.status_code == 202 and len(answer.json()["00081199"]["Value"]) == 1
    comments = [one["00000902"]["Value"][0] for one in answer.json()["00081198"]["Value"]]
    assert comments[0].startswith("not a DICOM file") and comments[1].startswith("not of modality")
    assert requests.post(f"{url}/studies", b"no DICOM", headers=DICOM).status_code == 409
    assert len(files_below(queue.folder)) == 1


def test_requests_that_are_none(queue, url, film):
    body, kind = multipart(film(1))
    for status, content, headers in (
        (415, film(1), {"Content-Type": "application/json"}),
        (415, film(1), {}),
        (400, body[:-20], {"Content-Type": kind}),
        (400, body, {"Content-Type": "multipart/related"}),
        (400, b"", DICOM),
        (413, bytes((1 << 20) + 1), DICOM),
    ):
        assert requests.post(f"{url}/studies", content, headers=headers).status_code == status
    chunked = requests.post(f"{url}/studies", iter([bytes(1 << 19)] * 3), headers=DICOM)  # it doesn't say its length
    assert chunked.status_code == 413
    assert requests.get(f"{url}/films?state=x").status_code == 422
    assert requests.get(f"{url}/films/..%2f..%2fetc").status_code == 404
    assert requests.get(f"{url}/docs").status_code == 404
    assert files_below(queue.folder) == set()


def test_a_full_queue_says_when_to_come_again(queue, url, film):
    for number in (1, 2, 3):
        receive(queue, film(number))
    answer = requests.post(f"{url}/studies", film(4), headers=DICOM)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "60"
    assert len(files_below(queue.folder)) == 3


def test_states_of_films(queue, url, film):
    receive(queue, film(1))
    assert requests.get(f"{url}/films/{uid_of(1)}").json()["state"] == "waiting"
    queue.finish(queue.take(), "dead", ["the archive \n is gone"])
    (dead,) = requests.get(f"{url}/films").json()
    assert dead["uid"] == uid_of(1) and dead["reasons"] == ["the archive \\n is gone"]
    assert requests.get(f"{url}/films?state=done").json() == []
    assert requests.get(f"{url}/films/1.2.9").status_code == 404
    assert requests.post(f"{url}/films/{uid_of(1)}/retry").json() == {"state": "waiting"}
    assert requests.post(f"{url}/films/{uid_of(1)}/retry").status_code == 404


def test_health_and_metrics(queue, url, film):
    receive(queue, film(1))
    assert requests.get(f"{url}/health").json() == {"status": "ok"}
    requests.post(f"{url}/studies", film(2), headers=DICOM)
    lines = requests.get(f"{url}/metrics").text.splitlines()
    values = dict(line.split(" ") for line in lines if not line.startswith("#"))
    assert values['cxw_films{state="waiting"}'] == "2" and values["cxw_received_total"] == "1"
    assert int(values["process_resident_memory_bytes"]) > 1 << 20


def test_the_container_s_health_check(url):
    assert healthy(int(url.rpartition(":")[2])) and not healthy(free_port())


def test_with_tls(queue, tmp_path):
    openssl = shutil.which("openssl") or pytest.skip("needs openssl")
    made = [tmp_path / "key.pem", tmp_path / "cert.pem"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", made[0], "-out", made[1]], check=True, capture_output=True)
    with served(queue, TOKEN, tls=(made[1], made[0])) as url:
        assert url.startswith("https") and healthy(int(url.rpartition(":")[2]))
        given = {"Authorization": f"Bearer {TOKEN}"}
        assert requests.get(f"{url}/metrics", headers=given, verify=made[1]).status_code == 200


def test_a_token_is_asked_for_but_for_health(queue, film):
    with served(queue, TOKEN) as url:
        assert requests.get(f"{url}/health").status_code == 200
        for header in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}):
            assert requests.get(f"{url}/metrics", headers=header).status_code == 401
            assert requests.post(f"{url}/studies", film(1), headers={**DICOM, **header}).status_code == 401
        given = {"Authorization": f"Bearer {TOKEN}"}
        assert requests.get(f"{url}/metrics", headers=given).status_code == 200
        assert requests.post(f"{url}/studies", film(1), headers={**DICOM, **given}).status_code == 200


def test_a_name_that_a_web_page_makes_up_for_this_machine_is_refused(url):
    assert requests.get(f"{url}/films", headers={"Host": "evil.example"}).status_code == 400


def test_a_body_that_does_not_come_leaves_nothing(queue, url, monkeypatch):
    monkeypatch.setattr("cxw_monai.service.web._CHUNK_SECONDS", 0.3)
    host, port = url.removeprefix("http://").split(":")
    for close in (True, False):
        with socket.create_connection((host, int(port)), timeout=10) as one:
            head = "POST /studies HTTP/1.1", "Host: localhost", "Content-Type: application/dicom", "Content-Length: 999"
            one.sendall("\r\n".join((*head, "", "")).encode() + b"x" * 10)
            if not close:
                assert b" 408 " in one.recv(999).splitlines()[0]
    until(lambda: files_below(queue.folder) == set(), 10, 0.1)
    assert json.loads(requests.get(f"{url}/health").text) == {"status": "ok"}
