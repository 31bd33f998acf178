"""The self-test's DICOMweb part: an Orthanc of its own on the loopback address, films from it, DICOM SEG back to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.uid import generate_uid

from cxw_monai.io import read_radiograph
from cxw_monai.label.label_files import write_result
from cxw_monai.label.label_maps import paint

from .films import PATIENT, make_films
from .server import RunningServer, free_port

__all__ = ["Orthanc", "missing", "try_dicomweb"]

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MODEL = "chexworld_segmentation"


def missing() -> str:
    """Why Orthanc can't be started; empty where it can."""
    if not _binary() or not _PLUGIN.exists():
        return "Orthanc isn't installed (Debian: apt-get install orthanc orthanc-dicomweb)"
    return ""


def _binary() -> str | None:
    return shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Orthanc:
    """A DICOMweb server in a process of its own, for this machine only, ended when the context is left.

    Args:
        folder: for its data.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, port = folder, free_port()
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        settings = {
            "Name": "selftest",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(_PLUGIN)],
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    def __enter__(self) -> Orthanc:
        with (self.folder / "log.txt").open("wb") as stream:
            command = [str(_binary()), str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        for _ in range(300):
            try:
                if requests.get(f"{self.url}/studies", timeout=10).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.2)
        self.__exit__(None, None, None)
        raise RuntimeError(f"Orthanc did not start:\n{(self.folder / 'log.txt').read_text()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(30)

    def store(self, *files: Path) -> str:
        """Store films, several of them as one series; the SeriesInstanceUID."""
        study, series = generate_uid(), generate_uid()
        for file in files:
            film = pydicom.dcmread(file)
            if len(files) > 1:
                film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID = study, series, generate_uid()
                film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
            DICOMwebClient(url=self.url).store_instances([film])
        return str(film.SeriesInstanceUID)

    def segmentations(self, series: str) -> list[Any]:
        """The DICOM SEGs that refer to a series, as highdicom reads them."""
        client, found = DICOMwebClient(url=self.url), []
        for one in client.search_for_series(search_filters={"Modality": "SEG"}):
            uids = [one[tag]["Value"][0] for tag in ("0020000D", "0020000E")]
            segs = [hd.seg.Segmentation.from_dataset(seg) for seg in client.retrieve_series(*uids)]
            found += [seg for seg in segs if seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series]
        return found


def try_dicomweb(folder: Path, bundle: Path, own: dict[str, np.ndarray]) -> str:
    """The journey with a DICOMweb server.

    Args:
        folder: to work in.
        bundle: the segmentation bundle's folder.
        own: the bundle's own masks of the films of `make_films`.

    Returns:
        What was done.
    """
    films = make_films(folder / "films")
    with Orthanc(folder / "orthanc") as orthanc:
        series = {name: orthanc.store(films[name]) for name in ("film_cr_2", "film_dx_1")}
        two = orthanc.store(films["film_cr_2"], films["film_dx_1"])
        with RunningServer(folder / "app", orthanc.url, bundle) as server:
            assert server.get("/info/").json()["datastore"]["total"] == 3
            _infer(server, series, two, own)
            drawn = {"film_cr_2": own["film_cr_2"], "film_dx_1": own["film_dx_1"].copy()}
            drawn["film_dx_1"][:, : drawn["film_dx_1"].shape[1] // 3] = False
            _save(server, orthanc, series, drawn, films["film_dx_1"], folder)
            assert server.post("/activelearning/random").json()["id"] == two
            _look_for_patient_data(server)
            orthanc.process.terminate()
            orthanc.process.wait(30)
            gone = server.infer(MODEL, "1.2.3.4")
            assert gone.status_code == 502 and "DICOMweb server" in gone.text, gone.text
    return "films from Orthanc; labels (OHIF's bytes, .seg.nrrd) back to it as DICOM SEG, bit for bit"


def _infer(server: RunningServer, series: dict[str, str], two: str, own: dict[str, np.ndarray]) -> None:
    """Series of one film give the bundle's masks, others a reason."""
    for name, uid in series.items():
        answer = server.infer(MODEL, uid, output="json")
        assert answer.ok, answer.text
        assert list(answer.json()["pixels"].values()) == own[name].sum(axis=(1, 2)).tolist(), name
    refused = server.infer(MODEL, two)
    assert refused.status_code == 422 and "series of 2 images" in refused.text, refused.text
    assert server.infer(MODEL, "1.2.3").status_code == 404
    assert server.infer(MODEL, "../orthanc").status_code == 404


def _save(
    server: RunningServer,
    orthanc: Orthanc,
    series: dict[str, str],
    drawn: dict[str, np.ndarray],
    film_of_layers: Path,
    folder: Path,
) -> None:
    """Labels saved as OHIF and as 3D Slicer do come to Orthanc as DICOM SEG."""
    structures = server.get("/info/").json()["labels"]
    (folder / "ohif.bin").write_bytes(paint(drawn["film_cr_2"], structures).tobytes())
    names = [{"name": name, "idx": number} for number, name in enumerate(structures, start=1)]
    saved = server.save_label(series["film_cr_2"], folder / "ohif.bin", label_info=names)
    assert saved.ok, saved.text
    write_result(folder / "slicer.seg.nrrd", read_radiograph(film_of_layers), drawn["film_dx_1"], structures)
    assert server.save_label(series["film_dx_1"], folder / "slicer.seg.nrrd").ok
    for name, masks in drawn.items():
        (seg,) = orthanc.segmentations(series[name])
        there = [number for number, mask in enumerate(masks) if mask.any()]
        labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
        assert labels == [structures[number] for number in there]
        assert np.array_equal(np.reshape(seg.pixel_array, masks[there].shape).astype(bool), masks[there])
        assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
        assert seg.PatientID == PATIENT["PatientID"]


def _look_for_patient_data(server: RunningServer) -> None:
    """There is none in the log and the datastore's record."""
    text = server.text()
    assert "Traceback" not in text, text[text.index("Traceback") :][:2000]
    text += "".join(file.read_text() for file in server.folder.rglob("*.json"))
    found = [value for value in (*PATIENT.values(), "SECRET", "19991231") if value in text]
    assert not found, found
