"""The comparison of reading speed: equal arrays on both sides; the times are not judged here."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speed.reading import measure_reading, reading_cases
from cxw_monai.io import read_radiograph


def test_both_sides_give_the_same_film(tmp_path):
    cases = reading_cases(tmp_path, sizes=(48,))
    assert [case.name for case in cases] == [
        "8-bit.png 48",
        "16-bit.png 48",
        "grey.jpg 48",
        "colour.jpg 48",
        "window.dcm 48",
        "rle.dcm 48",
    ]
    for case in cases:
        array, by_hand = read_radiograph(case.path).array, case.by_hand(case.path)
        assert by_hand.dtype == np.float32 and array.shape == (1, 48, 48)
        if case.path.suffix == ".dcm":  # float32 steps against one table
            np.testing.assert_allclose(array[0], by_hand, atol=3e-7)
            assert np.unique(array).size > 100
        else:
            np.testing.assert_array_equal(array[0], by_hand)


def test_rows(tmp_path):
    rows, bare = measure_reading(tmp_path, sizes=(32,), repeats=3)
    assert len(rows) == 6 and [row.name for row in bare] == [f"{row.name}, bare" for row in rows[:4]]
    for row in rows + bare:
        assert 0 < row.quartiles[0] <= row.median <= row.quartiles[1]
        assert row.milliseconds > 0


def test_one_repeat_has_no_quartiles(tmp_path):
    with pytest.raises(ValueError, match="repeats must be at least 2, got 1"):
        measure_reading(tmp_path, sizes=(32,), repeats=1)
