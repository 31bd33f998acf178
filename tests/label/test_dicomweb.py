"""Films of a DICOMweb server over HTTP: a small one of this file's own on the loopback address, with real DICOM."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

pytest.importorskip("dicomweb_client", reason="requirements.txt has it, for Python 3.11 or later")
pytest.importorskip("monailabel.interfaces", reason="needs fastapi (requirements.txt), on Python 3.11 or later")

from fastapi import HTTPException  # noqa: E402

from cxw_monai.io import read_radiograph  # noqa: E402
from cxw_monai.label.app import SEGMENTATION, CxwLabelApp  # noqa: E402
from cxw_monai.label.label_files import write_result  # noqa: E402
from cxw_monai.weights.bundles import named_bundle  # noqa: E402
from tests.label.selftest.films import PATIENT  # noqa: E402

NAMES = ("lung_left", "heart")
BOUNDARY = b"boundary-of-parts"


class Handler(BaseHTTPRequestHandler):
    """What is needed of QIDO-RS (series), WADO-RS (a series) and STOW-RS; `server.instances` holds the files."""

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def datasets(self) -> list[tuple[bytes, pydicom.Dataset]]:
        return [(content, pydicom.dcmread(io.BytesIO(content))) for content in self.server.instances]

    def do_GET(self) -> None:
        if self.server.status != 200:
            return self.answer(b"", "text/plain", self.server.status)
        path, wanted = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/web/series":
            found = {one.SeriesInstanceUID: one for _, one in self.datasets()}.values()
            for key, values in wanted.items():
                if key in ("Modality", "SeriesInstanceUID"):
                    found = [one for one in found if str(one.get(key)) in values]
            keys = {"0020000D": "StudyInstanceUID", "0020000E": "SeriesInstanceUID"}
            listed = [
                {tag: {"vr": "UI", "Value": [str(one.get(key))]} for tag, key in keys.items()}
                | {"00080060": {"vr": "CS", "Value": [one.Modality]}}
                for one in found
            ] + self.server.listed_too
            return self.answer(json.dumps(listed).encode(), "application/dicom+json")
        series = path.rsplit("/", 1)[-1]
        parts = [content for content, one in self.datasets() if one.SeriesInstanceUID == series]
        body = b"".join(b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n" + p + b"\r\n" for p in parts)
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
        return self.answer(body + b"--" + BOUNDARY + b"--", kind)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = b"--" + self.headers["Content-Type"].split("boundary=")[1].split(";")[0].strip('"').encode()
        stored = [part.split(b"\r\n\r\n", 1)[1] for part in body.split(boundary) if b"\r\n\r\n" in part]
        answer = pydicom.Dataset()
        if self.server.refuses:
            answer.FailedSOPSequence = [pydicom.Dataset()]
        else:
            self.server.instances += [part.removesuffix(b"\r\n") for part in stored]
        self.answer(answer.to_json().encode(), "application/dicom+json")


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.instances, one.listed_too, one.status, one.refuses = [], [], 200, False
        thread = Thread(target=one.serve_forever, args=(0.05,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def series(server, film_files) -> dict[str, str]:
    """SeriesInstanceUIDs of a CR, of a DX, of two films in one series, and of a CT."""
    found = {}
    for name, files, modality in (
        ("cr", ["film_cr_2"], "CR"),
        ("dx", ["film_dx_1"], "DX"),
        ("two", ["film_cr_2", "film_dx_1"], "CR"),
        ("ct", ["film_cr_2"], "CT"),
    ):
        uid, study = generate_uid(), generate_uid()
        for file in files:
            film = pydicom.dcmread(film_files[file])
            film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID = study, uid, generate_uid()
            film.file_meta.MediaStorageSOPInstanceUID, film.Modality = film.SOPInstanceUID, modality
            stream = io.BytesIO()
            film.save_as(stream)
            server.instances.append(stream.getvalue())
        found[name] = str(uid)
    return found


@pytest.fixture
def app(app_folder, server, series) -> CxwLabelApp:
    url = f"http://127.0.0.1:{server.server_port}/web/"
    return CxwLabelApp(str(app_folder), url, {"bundle": str(named_bundle("chexworld_segmentation"))})


def refused(status: int, said: str, call, *arguments) -> None:
    with pytest.raises(HTTPException) as raised:
        call(*arguments)
    assert raised.value.status_code == status and said in raised.value.detail, raised.value.detail


def test_films_of_the_server(app, series, film_files):
    store = app.datastore()
    assert set(store.list_images()) == {series["cr"], series["dx"], series["two"]}
    assert store.name() == app.studies.rstrip("/")
    for name, file in (("cr", "film_cr_2"), ("dx", "film_dx_1")):
        answer = app.infer({"model": SEGMENTATION, "image": series[name], "result_extension": ".seg.nrrd"})
        expected = app.label_model.masks(read_radiograph(film_files[file]))
        assert list(answer["params"]["pixels"].values()) == expected.sum(axis=(1, 2)).tolist()
    refused(422, "a series of 2 images", app.infer, {"model": SEGMENTATION, "image": series["two"]})
    for image in ("1.2.3", "../orthanc", "1" * 65, "1.2.", "film"):
        refused(404, "no such image", app.infer, {"model": SEGMENTATION, "image": image})
    assert app.next_sample({"strategy": "uncertainty"})["id"] in (series["cr"], series["dx"])


def test_a_label_goes_back_as_a_dicom_segmentation(app, series, server, film_files, tmp_path):
    film = read_radiograph(film_files["film_cr_2"])
    masks = app.label_model.masks(film)
    masks[:, : masks.shape[1] // 3] = False
    write_result(tmp_path / "label.seg.nrrd", film, masks, NAMES)
    app.datastore().save_label(series["cr"], str(tmp_path / "label.seg.nrrd"), "final", {})
    stored = [pydicom.dcmread(io.BytesIO(content)) for content in server.instances]
    (seg,) = [hd.seg.Segmentation.from_dataset(one) for one in stored if one.Modality == "SEG"]
    (own,) = [one for one in stored if one.SeriesInstanceUID == series["cr"]]
    assert [seg.get_segment_description(number).segment_label for number in seg.segment_numbers] == list(NAMES)
    found = seg.get_pixels_by_source_instance([own.SOPInstanceUID])[0]
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0).astype(bool), masks)
    assert seg.StudyInstanceUID == own.StudyInstanceUID and seg.PatientID == PATIENT["PatientID"]
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert series["cr"] not in app.datastore().get_unlabeled_images()
    server.refuses = True
    film = read_radiograph(film_files["film_dx_1"])
    write_result(tmp_path / "other.seg.nrrd", film, app.label_model.masks(film), NAMES)
    refused(
        502, "did not take", app.datastore().save_label, series["dx"], str(tmp_path / "other.seg.nrrd"), "final", {}
    )
    assert series["dx"] in app.datastore().get_unlabeled_images()


def test_nothing_of_the_patient_is_kept_beside_the_film(app, series, app_folder, caplog):
    caplog.set_level("DEBUG", logger="cxw_monai")
    app.infer({"model": SEGMENTATION, "image": series["cr"]})
    files = [path for path in app_folder.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    text = caplog.text + "".join(path.read_text(errors="replace") for path in files if path.suffix != ".pt")
    text += " ".join(str(path) for path in app_folder.rglob("*"))
    assert not [value for value in (*PATIENT.values(), "SECRET", "19991231") if value in text]


def test_a_server_that_fails(app, series, server):
    """It answers with an error, or not at all, or with names that are paths."""
    server.listed_too = [{"0020000D": {"vr": "UI", "Value": ["1"]}, "0020000E": {"vr": "UI", "Value": ["../../x"]}}]
    app.datastore()._listed = (-1e9, [])
    assert "../../x" not in app.datastore().list_images()
    server.status = 403
    refused(502, "the DICOMweb server answered 403", app.infer, {"model": SEGMENTATION, "image": series["dx"]})
    server.shutdown()
    server.server_close()
    refused(502, "can't be reached", app.infer, {"model": SEGMENTATION, "image": series["dx"]})


def test_films_are_neither_added_nor_removed_here(app, series, tmp_path):
    refused(422, "send films to the DICOMweb server", app.datastore().add_image, "film", str(tmp_path / "x.dcm"), {})
    refused(422, "can't be removed", app.datastore().remove_image, series["cr"])
