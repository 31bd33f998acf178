"""``bash scripts/monailabel.sh --selftest``: the journey of an annotator through the real server, over HTTP.

Each step is a function that raises an ``AssertionError`` (or whatever it meets) where something isn't as it should be.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import highdicom as hd
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monailabel.client import MONAILabelClient
from PIL import Image

import cxw_monai
from cxw_monai.io import read_radiograph
from cxw_monai.label.label_files import read_label, write_result
from cxw_monai.label.label_maps import paint
from cxw_monai.label.model import LabelModel

from .dicomweb import missing, try_dicomweb
from .films import PATIENT, make_bad_files, make_films
from .server import RunningServer

__all__ = ["Journey", "run_selftest"]

MODEL, EMBEDDING, CLASSES = "chexworld_segmentation", "chexworld_embedding", "chexworld_classification"
CONCURRENT, CLIENTS = 50, 10
GROWTH_MIB = 200
"""What the server's memory may grow by while it answers `CONCURRENT` requests."""


@dataclass
class Journey:
    """What the steps share.

    Attributes:
        server: the running server.
        folder: for the client's own files.
        bundle: the segmentation bundle's folder.
        films: name to file; all are in the server's folder or uploaded to it.
        bad: files that are no films.
        own: name to the bundle's own masks of the film, bool ``[S, H, W]``.
    """

    server: RunningServer
    folder: Path
    bundle: Path
    films: dict[str, Path]
    bad: dict[str, Path]
    own: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def model(self) -> LabelModel:
        """The server's model, read in this process."""
        return LabelModel(self.server.folder / "model" / f"{MODEL}.pt")

    def result(self, name: str, ending: str, content: bytes) -> np.ndarray:
        """A result's file as masks ``[S, *source_shape]``, or its map."""
        path = self.folder / f"result_{name}{ending}"
        path.write_bytes(content)
        film, structures = read_radiograph(self.films[name]), self.model.structures
        numbers = {one: number for number, one in enumerate(structures, start=1)}
        label_map, masks = read_label(path, film, structures, numbers)
        return label_map if label_map is not None else np.stack([masks[one] for one in structures])


def expected_masks(bundle: Path, films: Mapping[str, Path], output: Path) -> dict[str, np.ndarray]:
    """The masks that the bundle's own inference writes for these films (in one folder), upright."""
    folder = next(iter(films.values())).parent
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        input=str(folder),
        output=str(output),
        formats=["png", "csv"],
        initialize=[],
    )
    workflow.initialize()
    workflow.run()
    structures = LabelModel(bundle / "models" / "model.pt").structures
    return {
        name: np.stack([np.asarray(Image.open(output / name / "masks" / f"{one}.png")) > 0 for one in structures])
        for name in films
    }


def info(journey: Journey) -> str:
    """Models, labels and strategies are told."""
    found = journey.server.get("/info/").json()
    assert set(found["models"]) == {MODEL, EMBEDDING, CLASSES} and set(found["trainers"]) == {MODEL}, found
    assert set(found["strategies"]) >= {"random", "uncertainty"}
    assert found["labels"] == list(journey.model.structures)
    return f"{len(found['labels'])} structures, {found['datastore']['total']} films"


def upload(journey: Journey) -> str:
    """Films of every format are taken once."""
    for name, file in journey.films.items():
        answer = journey.server.upload(file, name)
        assert answer.ok and answer.json() == {"image": name}, answer.text
    again = journey.server.upload(journey.films["film_png"], "film_png")
    assert again.status_code == 409, again.text
    total = journey.server.get("/info/").json()["datastore"]["total"]
    assert total == len(journey.films), total
    return f"{total} films: PNG (8, 16 bits), JPEG, NIfTI, CR, DX MONOCHROME1"


def infer_each_format(journey: Journey) -> str:
    """Masks are the bundle's own, on the stored grid, in every result format."""
    endings = cycle((".png", ".nii.gz", ".nrrd"))
    for name, ending in zip(journey.films, endings, strict=False):
        answer = journey.server.infer(MODEL, name, result_extension=".seg.nrrd")
        assert answer.ok, f"{name}: {answer.text}"
        own_map = read_radiograph(journey.films[name]).meta["pixel_map"]
        stored = journey.own[name] if own_map.source_shape == journey.own[name].shape[1:] else None
        stored = np.swapaxes(journey.own[name], 1, 2) if stored is None else stored
        found = journey.result(name, ".seg.nrrd", answer.content)
        assert np.array_equal(found, stored), f"{name}: {np.count_nonzero(found != stored)} other pixels"
        answer = journey.server.infer(MODEL, name, result_extension=ending)
        assert np.array_equal(journey.result(name, ending, answer.content), paint(stored, journey.model.structures)), (
            name,
            ending,
        )
    return "equal to the bundle's inference, pixel by pixel, on the original grid"


def infer_a_file(journey: Journey) -> str:
    """A film may come with the request; structures may be chosen."""
    file = journey.films["film_jpeg"]
    sent = journey.server.infer(MODEL, file, output="json").json()
    there = journey.server.infer(MODEL, "film_jpeg", output="json").json()
    assert sent["pixels"] == there["pixels"] and sum(sent["pixels"].values()) > 0
    one = journey.server.infer(MODEL, "film_png", result_extension="png", structures=["mediastinum"])
    mediastinum = list(journey.model.structures).index("mediastinum")
    (journey.folder / "one.png").write_bytes(one.content)
    assert np.array_equal(np.asarray(Image.open(journey.folder / "one.png")) == 1, journey.own["film_png"][mediastinum])
    return "a film that comes with the request; one structure alone"


def dicom_seg(journey: Journey) -> str:
    """A DICOM film's result as DICOM SEG."""
    for name in ("film_cr_2", "film_dx_1"):
        answer = journey.server.infer(MODEL, name, result_extension=".dcm")
        assert answer.ok, answer.text
        path = journey.folder / f"{name}_seg.dcm"
        path.write_bytes(answer.content)
        seg = hd.seg.segread(path)
        labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
        assert labels == list(journey.model.structures)
        frames = seg.pixel_array.astype(bool)
        assert np.array_equal(frames, journey.own[name])
        assert seg.PatientID == PATIENT["PatientID"]
    refused = journey.server.infer(MODEL, "film_png", result_extension=".dcm")
    assert refused.status_code == 422 and "not a DICOM" in refused.text
    return "of CR and DX, all segments; refused for a PNG"


def embedding(journey: Journey) -> str:
    """The vector and the classes are the package's own."""
    names = "film_png", "film_png", "film_nifti"
    vectors = [journey.server.infer(EMBEDDING, name, output="json").json()["embedding"] for name in names]
    own = journey.model.embedding(read_radiograph(journey.films["film_png"]))
    assert vectors[0] == vectors[1] != vectors[2]
    assert np.allclose(vectors[0], own, rtol=1e-4, atol=1e-5)
    found, film = journey.server.infer(CLASSES, "film_png", output="json").json(), journey.films["film_png"]
    expected = cxw_monai.load(journey.server.classifier).classify(film, on_implausible="keep")
    assert np.allclose([found["probabilities"][name] for name in expected], [*expected.values()], atol=1e-5), found
    return f"{len(own)} numbers, {len(expected)} classes, the package's own"


def strategies(journey: Journey) -> str:
    """The next film is one without a label; the most uncertain one."""
    left = set(journey.films)
    for strategy in ("random", "uncertainty"):
        found = journey.server.post(f"/activelearning/{strategy}", client_id="selftest").json()
        assert found["id"] in left, found
    scores = {name: journey.model.uncertainty(read_radiograph(file)) for name, file in journey.films.items()}
    assert found["id"] == max(scores, key=lambda name: scores[name])
    assert journey.server.post("/activelearning/none").status_code == 404
    return f"random, uncertainty (chose {found['id']}, {found['weight']:.2f} bits a pixel)"


def save_labels(journey: Journey) -> str:
    """Labels of every format are taken, others refused."""
    structures = list(journey.model.structures)
    kinds = {"film_png": ".png", "film_jpeg": ".nii.gz", "film_nifti": ".nrrd", "film_cr_2": ".seg.nrrd"}
    for name, ending in kinds.items():
        film = read_radiograph(journey.films[name])
        shape = film.meta["pixel_map"].source_shape
        masks = np.zeros((len(structures), *shape), dtype=bool)
        masks[0, shape[0] // 8 : shape[0] // 2, shape[1] // 2 : shape[1] // 4 * 3] = True
        masks[1, shape[0] // 8 : shape[0] // 2, shape[1] // 8 : shape[1] // 4] = True
        path = journey.folder / f"label_{name}{ending}"
        write_result(path, film, masks, structures)
        answer = journey.server.save_label(name, path)
        assert answer.ok, answer.text
    wrong = journey.server.save_label("film_16bit", journey.folder / "label_film_png.png")
    assert wrong.status_code == 422 and "its film" in wrong.text, wrong.text
    unknown = journey.server.save_label("nothing", journey.folder / "label_film_png.png")
    assert unknown.status_code == 404
    stats = journey.server.get("/info/").json()["datastore"]
    assert stats["completed"] == len(kinds), stats
    chosen = journey.server.post("/activelearning/uncertainty").json()["id"]
    assert chosen not in kinds
    return f"{len(kinds)} films, as {', '.join(kinds.values())}; one of another size refused"


def slicers_client(journey: Journey) -> str:
    """By the client module that 3D Slicer's plug-in is built on, with what the plug-in sends."""
    client = MONAILabelClient(journey.server.url, tmpdir=str(journey.folder), client_id="selftest")
    structures = list(client.info()["models"][MODEL]["labels"])
    chosen = client.next_sample("random", {})["id"]
    for ending in (".nii.gz", ".seg.nrrd"):
        file, told = client.infer(MODEL, chosen, {"result_extension": ending})
        assert told["label_names"] == {name: number for number, name in enumerate(structures, start=1)}
        numbers = [{"name": name, "idx": number} for number, name in enumerate(structures, start=1)]
        client.save_label(chosen, file, params={"label_info": numbers})
        folder = journey.server.folder.parent / "studies" / "labels" / "masks" / chosen
        masks = np.stack([np.asarray(Image.open(folder / f"{name}.png")) > 0 for name in structures])
        assert np.array_equal(masks, journey.own[chosen]), f"{ending}: an unchanged label is not the model's masks"
    return "next film, infer, save unchanged: nothing is lost, not even where structures overlap"


def bad_files(journey: Journey) -> str:
    """What is no film, path or setting is answered with a reason."""
    server, reasons = journey.server, []
    for name, file in journey.bad.items():
        for answer in (server.upload(file, name.replace(".", "_")), server.infer(MODEL, file)):
            assert 400 <= answer.status_code < 600 and answer.json()["detail"], (name, answer.status_code, answer.text)
            reasons.append(answer.json()["detail"])
    for image in ("../film_png", "/etc/hostname", str(journey.films["film_png"])):
        assert server.infer(MODEL, image).status_code == 404, image
    for name in ("../escaped", "/tmp/escaped", ".hidden"):
        assert server.upload(journey.films["film_png"], name).status_code == 422, name
    for wrong in ({"result_extension": ".exe"}, {"threshold": 2}, {"structures": ["tail"]}):
        assert server.infer(MODEL, "film_png", **wrong).status_code == 422, wrong
    assert server.get("/info/", headers={"Host": "evil.example"}).status_code == 400
    foreign = server.get("/info/", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers
    assert server.alive
    assert not any(str(server.folder) in reason for reason in reasons)
    assert server.uploads_left() == [], server.uploads_left()
    return f"{len(reasons)} answers with a reason; paths and wrong settings refused; still alive"


class _Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def model_from_a_client(journey: Journey) -> str:
    """A model that would run something isn't read."""
    trap, own = journey.folder / "sprung", journey.model.path.read_bytes()
    torch.save({"model": _Trap(trap)}, journey.folder / "trap.pt")
    (journey.folder / "own.pt").write_bytes(own)
    journey.server.put_model(MODEL, journey.folder / "trap.pt").raise_for_status()
    refused = journey.server.infer(MODEL, "film_png", output="json")
    assert refused.status_code == 503 and "model can't be used" in refused.text, refused.text
    assert not trap.exists()
    journey.server.put_model(MODEL, journey.folder / "own.pt").raise_for_status()
    assert journey.server.infer(MODEL, "film_png", output="json").ok
    return "a pickle in its place is refused and not run; the model put back is used"


def concurrency(journey: Journey) -> str:
    """Many requests at once: nothing is lost, the memory doesn't grow."""
    names = [*journey.films] * (CONCURRENT // len(journey.films) + 1)
    journey.server.infer(MODEL, "film_png", result_extension=".seg.nrrd")
    before, peak = journey.server.rss_mib(), 0.0

    def one(name: str) -> bool:
        nonlocal peak
        answer = journey.server.infer(MODEL, name, output="json")
        peak = max(peak, journey.server.rss_mib())
        expected = journey.own[name].sum(axis=(1, 2)).tolist()
        return bool(answer.ok) and list(answer.json()["pixels"].values()) == expected

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        right = sum(pool.map(one, names[:CONCURRENT]))
    seconds = time.perf_counter() - started
    assert right == CONCURRENT, f"{CONCURRENT - right} of {CONCURRENT} answers lost or wrong"
    assert peak - before < GROWTH_MIB, f"from {before:.0f} to {peak:.0f} MiB"
    assert journey.server.uploads_left() == [], journey.server.uploads_left()
    return f"{CONCURRENT} answers right in {seconds:.1f} s; memory {before:.0f} MiB, at most {peak:.0f} MiB"


def train(journey: Journey) -> str:
    """Training replaces the model, and the server uses the new one."""
    before = journey.model.version
    wanted = {"max_epochs": 1, "learning_rate": 1e-3, "val_split": 0.25, "publish": "always"}
    task = journey.server.train(MODEL, **wanted)
    assert task["status"] == "DONE", "\n".join(task["details"])
    model = journey.model
    assert model.version != before
    answer = journey.server.infer(MODEL, "film_png", output="json").json()
    own = model.masks(read_radiograph(journey.films["film_png"]))
    assert answer["model"] == model.version
    assert list(answer["pixels"].values()) == own.sum(axis=(1, 2)).tolist()
    assert not np.array_equal(own, journey.own["film_png"])
    return f"one epoch on 5 labels; the server answers with the new model {model.version[:8]}"


def logs(journey: Journey) -> str:
    """No patient data, no error that nobody caught."""
    text = journey.server.text()
    found = [value for value in (*PATIENT.values(), "SECRET", "19991231") if value in text]
    assert not found, found
    assert "Traceback" not in text, text[text.index("Traceback") :][:2000]
    return f"{len(text.splitlines())} lines, no patient data, no traceback"


STEPS: dict[str, Callable[[Journey], str]] = {
    "/info/": info,
    "upload": upload,
    "infer, each format": infer_each_format,
    "infer, a file that is sent": infer_a_file,
    "DICOM SEG": dicom_seg,
    "embedding, classes": embedding,
    "next film": strategies,
    "save labels": save_labels,
    "3D Slicer's client": slicers_client,
    "bad files and paths": bad_files,
    "a model from a client": model_from_a_client,
    f"{CONCURRENT} infers at once": concurrency,
    "train, infer again": train,
    "logs": logs,
}


class _Table:
    """Runs steps and prints a row for each."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0

    def row(self, name: str, step: Callable[[], str]) -> None:
        """Run a step; an error in it is shown and counted."""
        started, shown = time.perf_counter(), ""
        try:
            told, state = step(), "ok"
            self.passed += 1
        except Exception as error:
            told, state, shown = f"{type(error).__name__}: {error}"[:300], "FAILED", traceback.format_exc()
            self.failed += 1
        print(f"{name:<28} {state:<7} {time.perf_counter() - started:6.1f} s  {told}", flush=True)
        if shown:
            print(shown, flush=True)

    def skip(self, name: str, reason: str) -> None:
        self.skipped += 1
        print(f"{name:<28} skipped           {reason}", flush=True)


def run_selftest(bundle: Path) -> int:
    """Run all steps on servers of its own, and print a table.

    Returns:
        0 where every step is as it should be, else 1.
    """
    bundle, table = bundle.resolve(), _Table()
    torch.set_num_threads(1)  # as the servers
    with tempfile.TemporaryDirectory(prefix="cxw_monai_label_") as temporary:
        folder = Path(temporary)
        films = make_films(folder / "films")
        bad = make_bad_files(folder / "bad", films)
        own = expected_masks(bundle, films, folder / "own")
        (folder / "studies").mkdir()
        with RunningServer(folder / "app", str(folder / "studies"), bundle) as server:
            journey = Journey(server, folder, bundle, films, bad, own)
            for name, step in STEPS.items():
                table.row(name, partial(step, journey))
            if table.failed:
                print(server.text()[-3000:])
        if reason := missing():
            table.skip("DICOMweb", reason)
        else:
            table.row("DICOMweb", partial(try_dicomweb, folder / "dicomweb", bundle, own))
    print(f"\n{table.passed} passed, {table.failed} failed, {table.skipped} skipped")
    return 1 if table.failed else 0
