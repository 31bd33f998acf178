"""How films are read is part of a cache, and the bundles' settings reach it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxw_monai.data.cache import build_cache
from cxw_monai.io import RadiographError
from cxw_monai.tasks.segmentation.dataset import annotated_films
from tests.helpers import dicom_files as _files

RAMP12 = (np.arange(400, dtype=np.uint16) * 10).reshape(20, 20)
BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture
def items(tmp_path):
    path = _files.write_dicom(tmp_path / "a.dcm", RAMP12, bits=12, WindowCenter=1000, WindowWidth=1001)
    return [{"image": str(path), "masks": {}}]


def test_a_cache_is_of_one_way_to_read(items, tmp_path):
    window = build_cache(items, tmp_path / "cache", progress=False)
    again = build_cache(items, tmp_path / "cache", progress=False, reader={"voi": "auto", "max_pixels": 80_000_000})
    full = build_cache(items, tmp_path / "cache", progress=False, reader={"voi": "none"})
    own = build_cache(items, tmp_path / "cache", progress=False, reader={"window": [3000, 201]})
    assert window.folder == again.folder and len({window.folder, full.folder, own.folder}) == 3
    np.testing.assert_allclose(window.image(0)[0] / 65535, np.clip((RAMP12 - 499.5) / 1000, 0, 1), atol=1e-4)
    np.testing.assert_allclose(full.image(0)[0] / 65535, RAMP12 / 4095, atol=1e-4)
    np.testing.assert_allclose(own.image(0)[0] / 65535, np.clip((RAMP12 - 2899.5) / 200, 0, 1), atol=1e-4)
    films = annotated_films(items, ["heart"], tmp_path / "cache", progress=False, reader={"voi": "none"})
    np.testing.assert_array_equal(films.image(0), full.image(0)[:, :])


def test_remedies_of_training_work_there(items, tmp_path):
    with pytest.raises(RadiographError, match="400 pixels|larger max_pixels") as caught:
        build_cache(items, tmp_path / "cache", progress=False, reader={"max_pixels": 100})
    assert "max_pixels" in caught.value.remedy
    with pytest.raises(RadiographError, match="take another voi"):
        build_cache(items, tmp_path / "cache", progress=False, reader={"voi": "lut"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"voi": "first"}, "voi must be one of"),
        ({"window": 5}, "two finite"),
        ({"max_pixels": 0}, "max_pixels must be"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(items, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        build_cache(items, tmp_path / "cache", progress=False, reader=wrong)
    assert not (tmp_path / "cache").exists()
