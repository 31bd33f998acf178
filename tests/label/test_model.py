"""The model as the server holds it, without the server."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.label.model import LabelModel, film_file, read_film
from cxw_monai.weights.encoder import CheckpointError
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings


def save_model(path: Path, seed: int) -> None:
    """A tiny segmenter of two structures with fresh weights."""
    settings = segmenter_settings(("lung_left", "heart"), 32, "tiny", 16, "linear", 4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_segmenter(new_segmenter(settings), settings, path)


@pytest.fixture
def film(tmp_path):
    grey = np.random.default_rng(3).integers(0, 255, (50, 40), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "film.png")
    return read_radiograph(tmp_path / "film.png")


def test_masks_are_on_the_stored_grid_and_the_file_may_be_replaced(tmp_path, film):
    save_model(tmp_path / "model.pt", 0)
    model = LabelModel(tmp_path / "model.pt")
    first, version = model.probabilities(film), model.version
    assert model.structures == ("lung_left", "heart") and first.shape == (2, 32, 32)
    assert model.masks(film).shape == (2, 50, 40)
    assert np.array_equal(model.probabilities(film), first)
    save_model(tmp_path / "new.pt", 1)
    shutil.move(tmp_path / "new.pt", tmp_path / "model.pt")
    assert model.version != version and not np.array_equal(model.probabilities(film), first)


def test_the_embedding_is_the_encoders_mean_token(tmp_path, film):
    save_model(tmp_path / "model.pt", 0)
    assert LabelModel(tmp_path / "model.pt").embedding(film).shape == (192,)


@pytest.mark.parametrize(
    ("chances", "bits"),
    [
        ([[0.5, 0.5]], 1.0),  # two drawn pixels of one bit each
        ([[1.0, 0.0]], 0.0),
        ([[1.0, 0.5]], 0.5),
        ([[0.0, 0.0]], float("inf")),
    ],
)
def test_uncertainty_is_bits_over_what_is_drawn(tmp_path, film, monkeypatch, chances, bits):
    model = LabelModel(tmp_path / "none.pt")
    monkeypatch.setattr(model, "probabilities", lambda film: np.array([chances], dtype=np.float32))
    assert model.uncertainty(film) == pytest.approx(bits, abs=1e-4)


def test_a_folder_of_several_images_is_no_film(tmp_path, film):
    assert read_film(tmp_path).array.shape == (1, 50, 40)
    Image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / "second.png")
    with pytest.raises(RadiographError, match="series of 2 images"):
        film_file(tmp_path)


def test_a_pickle_in_the_models_place_is_refused_and_not_run(tmp_path, film):
    trap = tmp_path / "run"

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    torch.save({"model": Trap()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError):
        LabelModel(tmp_path / "model.pt").masks(film)
    assert not trap.exists()
