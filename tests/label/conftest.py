"""MONAI Label itself, or the stand-in for it, and an app over films of every kind."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from cxw_monai.label.serve import lay_out
from cxw_monai.weights.segmenter import new_segmenter, save_segmenter, segmenter_settings
from tests.helpers.small_classifier import save_classifier


def _stand_in_where_needed() -> None:
    if importlib.util.find_spec("monailabel") is None and importlib.util.find_spec("fastapi") is not None:
        from tests.helpers import monailabel_stand_in

        monailabel_stand_in.install()


_stand_in_where_needed()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    """A tiny segmenter of two structures that it draws everywhere and nowhere in particular."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    settings = segmenter_settings(("lung_left", "heart"), 32, "tiny", 16, "linear", 4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_segmenter(new_segmenter(settings), settings, path)
    return path


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier") / "model.pt")


@pytest.fixture(scope="session")
def film_files(tmp_path_factory) -> dict[str, Path]:
    """Six films: PNG of 8 and 16 bits, JPEG, NIfTI, CR, DX."""
    from tests.label.selftest.films import make_films

    return make_films(tmp_path_factory.mktemp("films"))


@pytest.fixture
def app_folder(tmp_path, model_file) -> Path:
    lay_out(tmp_path / "app", model_file)
    return tmp_path / "app"
