"""A film's way through a clinic: Orthanc, the service, Orthanc, and OHIF, all of them the real ones."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from pydicom.sr.codedict import codes
from scipy.ndimage import binary_dilation, binary_erosion

from cxw_monai.io.results.dicom_seg_reading import read_dicom_seg
from tests.helpers import ohif
from tests.helpers.films_as_dx import film_as_dx
from tests.helpers.forks import Fork, start_python

pytest.importorskip("dicomweb_client", reason="comes with the extra `service`, on Python 3.11 or later")

PROJECT = Path(__file__).parents[2]
LUA = (PROJECT / "docs" / "orthanc.lua").read_text(encoding="utf-8")
CONFIG = re.search(r"```js\n(.*?)```", (PROJECT / "docs" / "ohif.md").read_text(encoding="utf-8"), re.S).group(1)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ohif.missing()), reason=ohif.missing())]


@contextmanager
def service(folder: Path, port: int, *arguments: str) -> Iterator[Fork]:
    """A running `cxw-monai serve`."""
    output = folder / "said"
    output.mkdir(exist_ok=True)
    code = "import sys; from cxw_monai.cli import main; sys.exit(main(sys.argv[1:]))"
    given = ("serve", folder / "queue", "--port", port, *arguments)
    process = start_python(["-c", code, *given], output, PROJECT)
    try:
        ohif.until(lambda: process.poll() is not None or ohif.request(f"http://127.0.0.1:{port}/health"), 120, 0.2)
        assert process.poll() is None, (output / "stderr").read_text()
        yield process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(60) is not None


@pytest.fixture(scope="module")
def clinic(tmp_path_factory, shared_data) -> Iterator[tuple[ohif.Orthanc, Path, Path]]:
    """An archive with a film that the service has answered, the film, and the folder of the service."""
    folder = tmp_path_factory.mktemp("clinic")
    film = film_as_dx(folder, sorted((shared_data / "nih_cxr14_subset" / "images").iterdir())[5], 1)
    port = ohif.free_port()
    with ohif.orthanc(folder, LUA, {"cxw": [f"http://127.0.0.1:{port}/"]}) as archive:
        models = ("--model", "chexworld_segmentation", "--model", "chexworld_classification")
        with service(folder, port, "--send-to", archive.web, *models):
            archive.add(film)
            ohif.until(lambda: len(archive.instances("SEG")) == 1 and len(archive.instances("SR")) == 2, 120)
            archive.add(film)  # again
            state = json.loads(ohif.request(f"http://127.0.0.1:{port}/films/1.2.5.1"))
            assert state["state"] == "done" and state["reasons"] == []
        yield archive, film, folder


def masks_of(archive: ohif.Orthanc, shape: tuple[int, int], folder: Path) -> dict[str, np.ndarray]:
    """The masks that the archive has."""
    (seg,) = archive.instances("SEG")
    identifiers = json.loads(ohif.request(f"{archive.url}/tools/lookup", seg["00080018"]["Value"][0].encode()))
    (folder / "seg.dcm").write_bytes(ohif.request(f"{archive.url}/instances/{identifiers[0]['ID']}/file"))
    return read_dicom_seg(folder / "seg.dcm", shape)


def test_a_film_comes_back_with_its_results(clinic):
    archive, film, folder = clinic
    masks = masks_of(archive, (499, 500), folder)
    assert 0.1 < masks["lung_right"].mean() < 0.3 and masks["heart"].any()
    for result in (*archive.instances("SEG"), *archive.instances("SR")):
        assert result["0020000D"]["Value"] == ["1.2.3.1"]
    log = (folder / "said" / "stderr").read_text()
    assert [json.loads(line)["event"] for line in log.splitlines()].count("answered") == 1
    assert "Secret" not in log and "1.2.5.1" not in log
    assert not [path for path in (folder / "queue").rglob("*.dcm")]


def diameters_of(archive: ohif.Orthanc) -> list[float]:
    """Of heart and thorax in mm, as the archive's report has them."""
    for report in archive.instances("SR"):
        (found,) = json.loads(ohif.request(f"{archive.url}/tools/lookup", report["00080018"]["Value"][0].encode()))
        content = hd.sr.srread(io.BytesIO(ohif.request(f"{archive.url}/instances/{found['ID']}/file"))).content
        numbers = [group.get_measurements()[0] for group in content.get_image_measurement_groups()]
        if numbers[0].name == codes.SCT.Diameter:
            return [number.value for number in numbers]
    raise AssertionError("no report of diameters")


OPEN = """for (const one of document.querySelectorAll('[data-cy=study-browser-thumbnail-no-image]')) {
  if (!one.innerText.startsWith(arguments[0])) continue;
  for (const kind of ['mousedown', 'mouseup', 'click', 'mousedown', 'mouseup', 'click', 'dblclick'])
    (one.querySelector('div') || one).dispatchEvent(new MouseEvent(kind, {bubbles: true, detail: 2}));
  return true;
}"""
CLICK = "const one = document.querySelector(`[data-cy=${arguments[0]}]`); one?.click(); return !!one"
SKIP = "[...document.querySelectorAll('button')].find(one => one.innerText == 'Skip all')?.click()"
PLACE = """const one = document.querySelector('[data-cy=viewport-pane]').getBoundingClientRect();
return [one.top, one.left, one.bottom, one.right]"""


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture isn't grey, bool `[H, W]`."""
    return np.ptp(picture.astype(int), axis=2) > 25


@pytest.mark.skipif(bool(ohif.missing(viewer=True)), reason=ohif.missing(viewer=True))
def test_a_viewer_shows_masks_and_diameters_on_the_film(clinic):
    archive, film, folder = clinic
    masks = masks_of(archive, (499, 500), folder)
    with ohif.viewer(archive, CONFIG) as url, ohif.browser() as page:
        page.open(f"{url}/viewer?StudyInstanceUIDs=1.2.3.1")
        ohif.until(lambda: "Segmentation, threshold" in page.text(), 60)
        ohif.until(lambda: page.run(CLICK, "confirm-and-hide-button"), 20)
        ohif.until(lambda: "Skip all" in page.text(), 30)
        page.run(SKIP)
        ohif.until(lambda: page.run(OPEN, "SEG"), 20)
        place = [round(side) for side in page.run(PLACE)]
        (shown,) = ohif.until(lambda: _segmented(page, place), 60)
        height, width = shown.shape[:2]
        side = min(height, width)  # the film fills the viewport's height, nearly square
        top, left = (height - side) // 2, (width - side) // 2
        film_shown = shown[top : top + side, left : left + side]
        if out := os.environ.get("CXW_PICTURES"):
            Image.fromarray(page.picture()).save(out + "/seg.png")
        _check_colours(film_shown, masks)
        ohif.until(lambda: page.run(OPEN, "SR\nDiameters"), 20)
        page.run(CLICK, "trackedMeasurements-btn")
        text = ohif.until(lambda: "cardiothoracic ratio" in page.text() and page.text(), 60)
        assert "Heart, transverse diameter" in text and "Thorax, inner transverse diameter" in text
        # Of a film with ImagerPixelSpacing, OHIF 3.13 calls mm at the detector "px Proj".
        lengths = {int(number) for number in re.findall(r"(\d+) (?:px Proj|mm)", text)}
        assert lengths == {round(length) for length in diameters_of(archive)}


def _segmented(page: ohif.Browser, place: list[int]) -> list[np.ndarray]:
    """The viewport, if it shows masks."""
    top, left, bottom, right = place
    shown = page.picture()[top:bottom, left:right]
    return [shown] if coloured(shown).mean() > 0.05 else []


def _check_colours(shown: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    """Colour where masks are and nowhere else; the right lung's green and the heart's red in their places."""
    scaled = {
        name: np.asarray(Image.fromarray(mask).resize(shown.shape[1::-1]), dtype=bool) for name, mask in masks.items()
    }
    inside = np.logical_or.reduce(list(scaled.values()))
    found, near = coloured(shown), {"iterations": 6}
    border = slice(30, -30)  # the viewer writes in its corners
    outside = ~binary_dilation(inside, **near)
    assert found[border, border][outside[border, border]].mean() < 0.01
    for name in ("clavicle_left", "clavicle_right"):  # the last segments, which shifted frames move most
        alone = binary_erosion(scaled[name] & ~scaled["lung_left"] & ~scaled["lung_right"], iterations=2)
        around = binary_dilation(scaled[name], iterations=40) & outside
        assert found[alone].mean() > 0.95 and found[around].mean() < 0.01
    red, green, blue = np.moveaxis(shown.astype(int), 2, 0)
    lung = binary_erosion(scaled["lung_right"] & ~scaled["heart"] & ~scaled["mediastinum"], **near)
    heart = binary_erosion(scaled["heart"] & ~scaled["lung_left"] & ~scaled["lung_right"], **near)
    assert (green > red)[lung].mean() > 0.9 and (green > blue)[lung].mean() > 0.9
    assert (red > green)[heart].mean() > 0.9 and (red > blue)[heart].mean() > 0.9
