"""The page on which a network is tried out: what it shows, and a visit of it in a browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import time

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxw_monai.tasks.pretraining import explore
from cxw_monai.tasks.pretraining.components import new_network
from cxw_monai.tasks.pretraining.explore import Views, read_film, serve
from cxw_monai.tasks.pretraining.settings import PretrainingSettings, SeeingSettings
from cxw_monai.tasks.pretraining.sight import open_sight
from tests.helpers.dicom_files import write_dicom
from tests.helpers.forks import start_python

SMALL = {"network_size": "tiny", "image_size": 32, "patch_size": 8, "predictor_dim": 24, "predictor_depth": 1}
SHOWN = "([where, picture]) => [...document.querySelectorAll(`${where} img`)].some(one => one.src.endsWith(picture))"
MASKS = {"mask_min_keep": 2}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Settings of a small world model and a dozen films, as plain values."""
    place = tmp_path_factory.mktemp("explored")
    torch.manual_seed(0)
    torch.save(new_network(PretrainingSettings(output_dir=str(place), **SMALL)).state_dict(), place / "model.pt")
    (place / "films").mkdir()
    for n, blobs in enumerate(gaussian_filter(np.random.default_rng(0).standard_normal((12, 64, 64)), (0, 4, 4))):
        grey = (blobs - blobs.min()) / (blobs.max() - blobs.min())
        Image.fromarray(np.rint(30 + 180 * grey).astype(np.uint8)).save(place / "films" / f"film{n:02}.png")
    paths = {"ckpt": place / "model.pt", "dataset_dir": place / "films", "output_dir": place / "out"}
    return {name: str(path) for name, path in paths.items()} | SMALL | MASKS | {"device": "cpu"}


@pytest.fixture(scope="module")
def views(given):
    settings = SeeingSettings(**given)
    return Views(open_sight(settings), settings)


def pictures(text):
    return re.findall(r'src="data:image/png;base64,([^"]+)', text)


def test_a_film_is_shown_with_its_nearest_ones(views):
    text = views.seen(views.sight.films.pixels[3].numpy())
    assert len(pictures(text)) == 3 + 5 and "film 4: 1.00" in text
    assert re.search(r"Surprise: [+-]\d\.\d\d standard deviations, more than \d+% of the 12 films", text)


def test_what_is_moved_changes_what_is_predicted(views):
    film = views.sight.films.pixels[0].numpy()
    first, moved = views.crop(film, 0, 0, 1, 0), views.crop(film, 0, 0, 1, 1)
    assert pictures(first)[0] == pictures(moved)[0] and pictures(first)[3] != pictures(moved)[3]
    dark, plain = views.exposure(film, 0.6, 1, 1, 0), views.exposure(film, 1, 1, 1, 0)
    assert pictures(dark)[0] != pictures(plain)[0] and pictures(dark)[1] == pictures(plain)[1]
    assert views.block(film, 0, 0) != views.block(film, 1, 1)
    assert views.masks(film, 0) == views.masks(film, 0) != views.masks(film, 1)


def test_a_network_that_predicts_nothing_says_so(given, tmp_path):
    settings = SeeingSettings(**given)
    prefix, state = "target_encoder.", torch.load(settings.ckpt, weights_only=True)
    torch.save(
        {f"encoder.{n.removeprefix(prefix)}": v for n, v in state.items() if n.startswith(prefix)}, tmp_path / "e.pt"
    )
    alone = settings.model_copy(update={"ckpt": str(tmp_path / "e.pt"), "output_dir": str(tmp_path)})
    views = Views(open_sight(alone), alone)
    film = views.sight.films.pixels[0].numpy()
    for text in (views.block(film, 0, 0), views.crop(film, 0, 0, 1, 1), views.exposure(film, 1, 1, 1, 0)):
        assert "has not learned to predict this" in text and not pictures(text)
    assert "Distance from the usual (no predictor)" in views.seen(film) and len(pictures(views.masks(film, 0))) == 2


def test_without_gradio_the_remedy_is_told(given, monkeypatch):
    monkeypatch.setattr(explore, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "cxw-monai\[explore\]"'):
        serve(SeeingSettings(**given))


def test_a_dicom_is_read_by_the_packages_own_reader(tmp_path):
    """MONOCHROME1 is turned, so that bone is bright."""
    grey = np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)
    film = read_film(write_dicom(tmp_path / "a.dcm", grey, bits=12, photometric="MONOCHROME1"), (32, 32))
    assert film.shape == (1, 64, 64) and film.dtype == torch.uint8
    assert film[0, 0, 0] > 200 > 50 > film[0, -1, -1]


def chromium():
    """A browser and what drives it, or a skip by name."""
    for module in ("gradio", "playwright.sync_api"):
        pytest.importorskip(module, reason=f"{module} isn't installed: pip install 'cxw-monai[explore]' playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    return path


@contextlib.contextmanager
def served(given, folder, port):
    """The page in a process of its own."""
    code = (
        "import json, logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from cxw_monai.tasks.pretraining.explore import serve\n"
        "from cxw_monai.tasks.pretraining.settings import SeeingSettings\n"
        f"serve(SeeingSettings(**json.loads({json.dumps(json.dumps({**given, 'port': port}))})))"
    )
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "no_proxy": "127.0.0.1"}
    (folder / "tmp").mkdir()
    process = start_python(["-c", code], folder, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_visit_with_a_browser(given, views, tmp_path):
    """A film is dropped and another crop asked for; nothing is loaded from elsewhere, and nothing stays behind."""
    browser_path = chromium()
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upload = write_dicom(tmp_path / "SECRETNAME.dcm", np.tile(np.arange(64, dtype=np.uint16) * 60, (64, 1)), bits=12)
    film = read_film(upload, (32, 32)).numpy()
    with served(given, tmp_path, port) as process, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        deadline = time.monotonic() + 180
        while True:
            try:
                page.goto(f"http://127.0.0.1:{port}", timeout=10_000)
                break
            except Exception:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "stderr").read_text()[-2000:]
                time.sleep(1)
        page.wait_for_selector("#seen img", timeout=90_000)
        page.set_input_files("#upload input[type=file]", str(upload))
        page.wait_for_function(SHOWN, arg=["#seen", pictures(views.seen(film))[0]], timeout=90_000)
        page.get_by_role("tab", name="Another exposure").click()
        page.fill("#brightness input[type=number]", "1.3")
        page.press("#brightness input[type=number]", "Enter")
        page.wait_for_function(
            SHOWN, arg=["#exposure", pictures(views.exposure(film, 1.3, 1, 1, 0))[0]], timeout=90_000
        )
        if folder := os.environ.get("CXW_EXPLORE_PICTURES"):
            page.screenshot(path=f"{folder}/explore.png")
        uploads = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file() and "SECRETNAME" in path.name]
        assert not uploads  # deleted once it was read
        own = f"127.0.0.1:{port}"
        foreign = [url for url in requests if not url.startswith((f"http://{own}", f"ws://{own}", "data:", "blob:"))]
        assert not foreign
        browser.close()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) is not None
    assert not list((tmp_path / "tmp").glob("cxw_explore_*"))
    said = (tmp_path / "stdout").read_text() + (tmp_path / "stderr").read_text()
    assert "SECRETNAME" not in said and "Traceback" not in said
