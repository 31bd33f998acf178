"""The command: what it refuses, C-STORE, and kill -9."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom", reason="comes with the extra `service`")
pytest.importorskip("dicomweb_client", reason="comes with the extra `service`, on Python 3.11 or later")

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES  # noqa: E402

from cxw_monai.cli import main  # noqa: E402
from cxw_monai.service.dimse import start_dimse  # noqa: E402
from cxw_monai.service.queue import FilmQueue  # noqa: E402
from cxw_monai.service.serve import TOKEN_VARIABLE, ServiceSettings  # noqa: E402
from cxw_monai.service.work import Metrics  # noqa: E402
from tests.helpers import ohif  # noqa: E402
from tests.helpers.dicom_files import DX  # noqa: E402
from tests.helpers.films_as_dx import film_as_dx  # noqa: E402
from tests.helpers.forks import start_python  # noqa: E402
from tests.service.conftest import files_below, uid_of  # noqa: E402

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --tls-cert and --tls-key, and a token"),
        (["--tls-cert", "a.pem"], "both --tls-cert and --tls-key"),
        (["--workers", "0"], "workers must be at least 1"),
        (["--ae-title", "A" * 17], "1 to 16 characters"),
        (["--model", "nothing"], "nothing"),
        (["--watch", "nowhere"], "no such folder; check --watch"),
        (["--seg-type", "labelmap"], "seg_type must be one of"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.setattr("cxw_monai.service.serve._log_lines", lambda: None)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert main(["serve", str(tmp_path / "q"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_beyond_the_loopback_it_needs_tls_and_a_token(tmp_path, monkeypatch):
    tls = {"certificate": tmp_path / "c.pem", "key": tmp_path / "k.pem"}
    given = {"folder": tmp_path, "models": ("m",), "host": "0.0.0.0"}
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * 15)
    with pytest.raises(ValueError, match="at least 16 ASCII characters"):
        ServiceSettings(**given, **tls)
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * 16)
    assert ServiceSettings(**given, **tls).token == "x" * 16
    with pytest.raises(ValueError, match="not this machine's loopback"):
        ServiceSettings(**given)
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(ValueError, match="not this machine's loopback"):
        ServiceSettings(**given, **tls)


def test_films_by_c_store(tmp_path, film):
    queue, metrics, port = FilmQueue(tmp_path / "q", most=1), Metrics(), ohif.free_port()
    server = start_dimse(queue, metrics, port, "CXW_MONAI")
    try:
        entity = AE()
        entity.add_requested_context(DX, ALL_TRANSFER_SYNTAXES[:3])
        entity.add_requested_context(CT)
        association = entity.associate("127.0.0.1", port)
        assert association.is_established and {one.abstract_syntax for one in association.rejected_contexts} == {CT}
        statuses = []
        for content in (film(1), film(1), film(2), film(3, Modality="OT")):
            statuses.append(association.send_c_store(pydicom.dcmread(io.BytesIO(content))))
        association.release()
    finally:
        server.shutdown()
    assert [one.Status for one in statuses] == [0, 0, 0xA700, 0xA900]
    assert statuses[3].ErrorComment == "not of modality CR, DX, RG"
    assert metrics.counts["received"] == 1 and len(files_below(queue.folder)) == 1
    kept = pydicom.dcmread(queue.film_file(queue.take().key))
    assert kept.SOPInstanceUID == uid_of(1) and kept.PixelData == pydicom.dcmread(io.BytesIO(film(1))).PixelData


@pytest.mark.slow
def test_killed_again_and_again_each_film_is_answered_once(tmp_path, shared_data):
    """Six films, three kills: while it answers, and while it sends. No film is lost, none has two answers."""
    if reason := ohif.missing():
        pytest.skip(reason)
    pictures = sorted((shared_data / "nih_cxr14_subset" / "images").iterdir())
    films = [film_as_dx(tmp_path, pictures[number], number, side=128) for number in range(6)]
    queue, port, log = tmp_path / "queue", ohif.free_port(), tmp_path / "said"
    log.mkdir()
    with ohif.orthanc(tmp_path) as archive:
        arguments = ("-m", "cxw_monai", "serve", queue, "--port", port, "--send-to", archive.web)
        for kills, batch in enumerate((films[:2], films[2:4], films[4:], [])):
            process = start_python(arguments, log, Path(__file__).parents[2])
            ohif.until(lambda: ohif.request(f"http://127.0.0.1:{port}/health"), 120, 0.05)
            for film in batch:
                content = film.read_bytes()
                ohif.request(f"http://127.0.0.1:{port}/studies", content, Content_Type="application/dicom")
            if batch:
                ohif.until(lambda kills=kills: len(archive.instances("SEG")) > kills, 60, 0.02)
                os.kill(process.pid, signal.SIGKILL)
                process.wait(30)
        ohif.until(lambda: len(json.loads(ohif.request(f"http://127.0.0.1:{port}/films?state=done"))) == 6, 120)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        for kind in ("SEG", "SR"):
            studies = sorted(one["0020000D"]["Value"][0] for one in archive.instances(kind))
            assert studies == [f"1.2.3.{number}" for number in range(6)]
    assert files_below(queue) - {".cxw_lock"} == set()
