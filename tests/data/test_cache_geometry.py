"""Spacing, shape and masks of films that aren't square, with pixels that aren't square, through the cache and back.

The film is 60 rows x 150 columns of pixels 0.3 mm high and 0.2 mm wide: 18 mm x 30 mm. At a shorter side of 20 it has
20 rows x 50 columns, each pixel (0.3 * 60 / 20, 0.2 * 150 / 50) = (0.9, 0.6) mm: still 18 mm x 30 mm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.cache import RadiographCache, build_cache
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.tasks.segmentation.dataset import annotated_films
from tests.helpers import dicom_files as _files

CASES = {  # rows, columns, (row, column) spacing in mm, size -> rows, columns, spacing of the cached film
    "wide": ((60, 150, (0.3, 0.2), 20), (20, 50, (0.9, 0.6))),
    "tall": ((150, 60, (0.3, 0.2), 20), (50, 20, (0.9, 0.6))),
    "wide, pixels wide": ((60, 150, (0.2, 0.3), 20), (20, 50, (0.6, 0.9))),
    "sides rounded": ((60, 140, (0.3, 0.2), 25), (25, 58, (0.72, 0.2 * 140 / 58))),  # 140 * 25 / 60 = 58.3
    "not resized": ((60, 150, (0.3, 0.2), 60), (60, 150, (0.3, 0.2))),
}


def film(folder: Path, rows: int, columns: int, spacing: tuple[float, float]) -> Path:
    """A DICOM whose upper left quarter is bright, with noise."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 200, (rows, columns)).astype(np.uint16)
    pixels[: rows // 2, : columns // 2] += 3000
    return _files.write_dicom(folder / "film.dcm", pixels, bits=12, PixelSpacing=list(spacing))


@pytest.mark.parametrize(("source", "cached"), CASES.values(), ids=CASES)
def test_spacing_and_shape_come_back_as_worked_out_by_hand(tmp_path, source, cached):
    rows, columns, spacing, size = source
    item = {"image": str(film(tmp_path / "in", rows, columns, spacing))}
    folder = build_cache([item], tmp_path / "c", size=size, progress=False).folder
    cache = RadiographCache(folder)
    assert cache.shape(0) == cached[:2] and cache.image(0).shape == (1, *cached[:2])
    assert cache.meta[0]["original_shape"] == [rows, columns]
    assert cache.meta[0]["spacing_mm"] == pytest.approx(cached[2], rel=1e-12)
    height, width = (n * mm for n, mm in zip(cached[:2], cache.meta[0]["spacing_mm"], strict=True))
    assert (height, width) == pytest.approx((rows * spacing[0], columns * spacing[1]))  # mm, whatever the pixels
    found = PixelMap.from_dict(cache.meta[0]["pixel_map"])
    assert found == (PixelMap((rows, columns)).resize(*cached[:2]) if size < 60 else PixelMap((rows, columns)))


@pytest.mark.parametrize(("source", "cached"), CASES.values(), ids=CASES)
def test_masks_have_the_cached_films_grid_and_spacing(tmp_path, source, cached):
    rows, columns, spacing, size = source
    image = film(tmp_path / "in", rows, columns, spacing)
    masks = {}
    for name, place in (("above", np.s_[: rows // 2, :]), ("left", np.s_[:, : columns // 2])):
        mask = np.zeros((rows, columns), np.uint8)
        mask[place] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        masks[name] = [str(tmp_path / f"{name}.png")]
    films = annotated_films(
        [{"image": str(image), "masks": masks}], ["above", "left"], tmp_path / "c", size, progress=False
    )
    assert films.spacing_mm(0) == pytest.approx(cached[2], rel=1e-12)
    label = films.label(0)
    assert label.shape == (2, *cached[:2])
    above, left = label.astype(bool)
    assert above.all(axis=1).sum() == above.any(axis=1).sum() == round(cached[0] / 2 + 0.01)  # half the rows, whole
    assert left.all(axis=0).sum() == left.any(axis=0).sum() == cached[1] // 2
    bright = films.image(0)[0].astype(float)
    inside, outside = bright[above & left].mean(), bright[~(above & left)].mean()
    assert inside > 5 * outside  # film and masks lie on each other
