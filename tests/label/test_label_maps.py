"""Label maps of structures that overlap, against hand-drawn ones."""

import numpy as np
import pytest

from cxw_monai.label.label_maps import annotated_masks, hidden_pixels, paint, structure_values

NAMES = ("lung", "heart")
LUNG = np.array([[1, 1, 1, 0]], dtype=bool)
HEART = np.array([[0, 0, 1, 1]], dtype=bool)
SHOWN = np.stack([LUNG, HEART])


def test_a_later_structure_lies_on_top():
    assert paint(SHOWN).tolist() == [[1, 1, 2, 2]]
    assert hidden_pixels(SHOWN) == [1, 0]


def test_an_unchanged_map_gives_the_masks_that_it_was_painted_from():
    found = annotated_masks(paint(SHOWN), structure_values(NAMES, None), SHOWN, NAMES)
    assert np.array_equal(found["lung"], LUNG) and np.array_equal(found["heart"], HEART)


def test_a_changed_pixel_belongs_to_what_was_painted_there_alone():
    found = annotated_masks(np.array([[1, 0, 1, 2]]), structure_values(NAMES, None), SHOWN, NAMES)
    assert found["lung"].tolist() == [[True, False, True, False]]  # erased from pixel 1; pixel 2 now is lung only
    assert found["heart"].tolist() == [[False, False, False, True]]


def test_a_structure_without_a_pixel_was_not_drawn():
    assert list(annotated_masks(np.array([[0, 0, 2, 2]]), structure_values(NAMES, None), SHOWN, NAMES)) == ["heart"]


def test_the_clients_numbers_are_followed():
    values = structure_values(NAMES, [{"name": "heart", "idx": 1}, {"name": "tube", "idx": 3}, {"name": "lung"}])
    assert values == {"lung": 3, "heart": 1}
    with pytest.raises(ValueError, match="number of its own"):
        structure_values(NAMES, [{"name": "heart", "idx": 1}, {"name": "lung", "idx": 1}])
    with pytest.raises(ValueError, match="list of"):
        structure_values(NAMES, [{"idx": 1}])
    found = annotated_masks(np.array([[2, 2, 1, 1]]), {"lung": 2, "heart": 1}, SHOWN, NAMES)
    assert np.array_equal(found["lung"], LUNG)
