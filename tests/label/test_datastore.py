"""Names and films of the server's folder, where MONAI Label is installed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="MONAI Label is in an environment of its own: requirements-monailabel.txt")

from fastapi import HTTPException  # noqa: E402

from cxw_monai.label.datastore import FilmDatastore, checked_name  # noqa: E402
from cxw_monai.label.model import LabelModel  # noqa: E402

MODEL = Path(__file__).resolve().parents[2] / "bundles" / "chexworld_segmentation" / "models" / "model.pt"


def save_film(path: Path) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 32), dtype=np.uint8)).save(path)


def test_films_of_a_folder_are_those_of_known_endings_each_name_once(tmp_path):
    for name in ("a.png", "a.jpg", "b.PNG", "c.two.png"):
        save_film(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.png").rename(tmp_path / name)
    for name in ("notes.txt", "label.bin", "label.seg.nrrd", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    store = FilmDatastore(str(tmp_path), LabelModel(MODEL), watch=False)
    assert sorted(store.list_images()) == ["a", "b", "c.two"]
    assert Path(store.get_image_uri("a")).name == "a.jpg"
    assert Path(store.get_image_uri("b")).name == "b.PNG"
    assert store.get_image_uri("../a") == ""


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", ".a", "a\nb", None])
def test_paths_are_no_names(name):
    with pytest.raises(HTTPException):
        checked_name(name, "image name")


def test_a_film_that_is_refused_leaves_nothing(tmp_path):
    store = FilmDatastore(str(tmp_path / "studies"), LabelModel(MODEL), watch=False)
    sent = tmp_path / "sent.png"
    sent.write_bytes(b"no image")
    with pytest.raises(HTTPException, match="not an image"):
        store.add_image("film", str(sent), {})
    assert not sent.exists() and store.list_images() == []
    save_film(sent)
    assert store.add_image("film", str(sent), {}) == "film"
    assert store.list_images() == ["film"]
