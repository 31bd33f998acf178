"""The view cases measure whole loaders on both sides, by the same name and in pairs."""

from __future__ import annotations

import pytest

from benchmarks.speed.views import measure_view_loading


@pytest.mark.parametrize(
    ("workers", "decode", "origin"), [(0, False, "cache, 0 workers"), (1, True, "files, 1 worker")]
)
def test_loaders_are_measured_in_pairs(workers, decode, origin):
    found = measure_view_loading(2, 64, 32, workers, decode, films=2, batch=2, rounds=1)
    name = f"views 64->32 from {origin}"
    assert [one.name for one in found] == [
        f"{name}, {side}" for side in ("package", "Pillow RGB", "package over Pillow")
    ]
    package, pillow, ratios = (one.values for one in found)
    assert len(ratios) == 2 and min(package + pillow) > 0
    assert ratios == pytest.approx([a / b for a, b in zip(package, pillow, strict=True)])
