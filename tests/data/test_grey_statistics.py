"""Mean and deviation of a data set's grey values, by hand."""

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.cache import build_cache
from cxw_monai.data.grey_statistics import grey_statistics


def cache_of(folder, *films):
    (folder / "films").mkdir()
    for number, film in enumerate(films):
        Image.fromarray(film).save(folder / "films" / f"{number}.png")
    items = [{"image": str(path)} for path in sorted((folder / "films").iterdir())]
    return build_cache(items, folder / "cache", 16, progress=False)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_each_film_counts_alike(tmp_path):
    """All greys once, and their half: means 1/2 and 1/4, mean squares 1/3 and 1/12."""
    mean, deviation = grey_statistics(cache_of(tmp_path, RAMP, RAMP // 2))
    assert mean == pytest.approx(3 / 8, abs=0.01)
    assert deviation == pytest.approx(np.sqrt((1 / 3 + 1 / 12) / 2 - (3 / 8) ** 2), abs=0.01)


def test_of_many_films_some_are_taken_evenly(tmp_path):
    mean, _ = grey_statistics(cache_of(tmp_path, RAMP, RAMP // 2, RAMP // 2, RAMP // 4), most=2)  # the first, the third
    assert mean == pytest.approx((1 / 2 + 1 / 4) / 2, abs=0.01)
