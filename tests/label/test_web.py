"""The web application answers this machine's own clients only: other names and other sites' pages get nothing."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("monailabel.app", reason="needs fastapi (requirements.txt), on Python 3.11 or later")


@pytest.fixture(scope="module")
def app():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXW_LABEL_HOSTS", "127.0.0.1,localhost")  # read when it is imported
        from cxw_monai.label.web import app

    return app


def asked(app, **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to `GET /info/`."""
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"},
        **{"path": "/none", "raw_path": b"/none", "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1)},
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000"])
def test_this_machines_names_are_answered(app, host):
    assert asked(app, Host=host)[0] == 404  # of the page, not of the name


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
def test_other_names_are_refused(app, host):
    assert asked(app, Host=host)[0] == 400


def test_pages_of_other_sites_read_nothing(app):
    status, headers = asked(app, Host="127.0.0.1", Origin="http://evil.example")
    assert status == 404 and not [name for name in headers if name.startswith("access-control")]
