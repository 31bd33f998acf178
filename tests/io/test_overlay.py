"""Overlays: exact boundaries, polarity, colours that colour-blind eyes tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cxw_monai.io.results.overlay import FILL, draw_overlay, write_overlay
from cxw_monai.io.structures import definitions, structure_colours

HEART = structure_colours(["heart"])[0]
# Viénot, Brettel and Mollon 1999 in linear RGB, rounded: what protanopes and deuteranopes see.
DICHROMATS = [
    np.array([[0.112, 0.888, 0.0], [0.112, 0.888, 0.0], [0.004, -0.004, 1.0]]),
    np.array([[0.293, 0.707, 0.0], [0.293, 0.707, 0.0], [-0.022, 0.022, 1.0]]),
]


def _rectangle(shape: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((1, *shape), dtype=bool)
    mask[0, top:bottom, left:right] = True
    return mask


def test_the_contour_is_the_outermost_ring_of_the_mask():
    film = np.full((40, 50), 0.5, dtype=np.float32)
    picture = draw_overlay(film, _rectangle((40, 50), 10, 20, 5, 30), ["heart"])
    expected = np.full((40, 50, 3), round(0.5 * 255), dtype=np.uint8)  # nothing outside is touched
    expected[10:20, 5:30] = HEART
    expected[11:19, 6:29] = np.rint((1 - FILL) * 127.5 + FILL * np.array(HEART))
    np.testing.assert_array_equal(picture, expected)


def test_one_row_off_is_seen():
    film = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    one, other = (draw_overlay(film, _rectangle((40, 50), top, top + 9, 5, 30), ["heart"]) for top in (10, 11))
    assert (one[10] != other[10]).any(axis=-1).sum() == 25 and (one[19] != other[19]).any(axis=-1).sum() == 25


def test_a_contour_at_the_edge_of_the_film_and_an_empty_mask():
    masks = np.concatenate([_rectangle((20, 20), 0, 20, 0, 20), np.zeros((1, 20, 20), bool)])
    picture = draw_overlay(np.zeros((20, 20)), masks, ["heart", "trachea"])
    ring = np.ones((20, 20), bool)
    ring[1:-1, 1:-1] = False
    np.testing.assert_array_equal((picture == HEART).all(axis=-1), ring)


def test_contours_get_wider_with_the_film():
    film = np.zeros((2048, 30))
    picture = draw_overlay(film, _rectangle(film.shape, 100, 200, 5, 25), ["heart"])
    column = (picture[:, 15] == HEART).all(axis=-1)
    assert np.flatnonzero(column).tolist() == [100, 101, 102, 103, 196, 197, 198, 199]


def test_bright_stays_bright_and_the_legend_lies_below(tmp_path):
    film = np.zeros((600, 700), dtype=np.float32)
    film[:300] = 1
    write_overlay(tmp_path / "o.png", film, np.zeros((3, 600, 700), bool), ["lung_left", "lung_right", "heart"])
    picture = np.asarray(Image.open(tmp_path / "o.png"))
    assert picture.shape[0] > 600 and picture.shape[1] == 700
    assert (picture[:300] == 255).all() and (picture[300:600] == 0).all()
    colours = {tuple(colour) for colour in picture[600:].reshape(-1, 3).tolist()}
    assert set(structure_colours(["lung_left", "lung_right", "heart"])) <= colours


def test_the_picture_says_which_lung_it_shows(tmp_path):
    names = ["lung_field_left", "lung_left", "my_finding"]
    write_overlay(tmp_path / "o.png", np.zeros((600, 700)), np.zeros((3, 600, 700), bool), names)
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.text == definitions(names) and set(picture.text) == set(names[:2])


def test_the_outline_of_a_part_lies_on_that_of_the_whole():
    names = ["lung_field_left", "lung_left"]
    field, lung = _rectangle((40, 50), 5, 35, 20, 40), _rectangle((40, 50), 5, 35, 10, 40)
    picture = draw_overlay(np.zeros((40, 50)), np.concatenate([field, lung]), names)
    field_colour, lung_colour = structure_colours(names)
    assert tuple(picture[20, 39]) == field_colour and tuple(picture[20, 10]) == lung_colour


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((4096, 2048), None, (2048, 1024)),
        ((128, 100), None, (512, 400)),
        ((600, 800), (0.2, 0.2), (600, 800)),
        ((600, 800), (0.3, 0.2), (900, 800)),
        ((600, 800), (0.2, 0.4), (600, 1600)),
    ],
)
def test_size_of_the_picture(tmp_path, shape, spacing, expected):
    path = tmp_path / "o.png"
    write_overlay(path, np.ones(shape), np.zeros((1, *shape), bool), ["heart"], spacing_mm=spacing)
    picture = np.asarray(Image.open(path))
    assert picture.shape[1] == expected[1]
    rows = (picture == 255).all(axis=(1, 2))
    assert rows.sum() == expected[0] and rows[: expected[0]].all()


def test_colours_of_the_common_structures_differ_for_dichromats():
    names = ["lung_left", "lung_right", "heart", "mediastinum", "clavicle_left", "clavicle_right"]
    names += ["lung_field_left", "lung_field_right"]
    colours = (np.array(structure_colours(names)) / 255) ** 2.2
    for matrix in [np.eye(3), *DICHROMATS]:
        seen = np.clip(colours @ matrix.T, 0, 1) ** (1 / 2.2) * 255
        distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e3 * np.eye(len(names))
        assert distance.min() > 35, np.round(distance)


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"must be bool \[1, 20, 30\], got bool of shape \(1, 30, 20\)"):
        draw_overlay(np.zeros((20, 30)), np.zeros((1, 30, 20), bool), ["heart"])
