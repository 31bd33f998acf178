"""Label maps of structures that overlap, against hand-drawn ones."""

import numpy as np
import pytest

from cxw_monai.label.label_maps import annotated_masks, hidden_pixels, paint, structure_values

NAMES = ("lung", "heart")
LUNG = np.array([[1, 1, 1, 0]], dtype=bool)
HEART = np.array([[0, 0, 1, 1]], dtype=bool)
SHOWN = np.stack([LUNG, HEART])


def test_a_later_structure_lies_on_top():
    assert paint(SHOWN, NAMES).tolist() == [[1, 1, 2, 2]]
    assert hidden_pixels(SHOWN, NAMES) == [1, 0]


NESTED = ("lung_field_left", "lung_left", "heart")
NESTED_SHOWN = np.array([[[1, 1, 0, 0, 0]], [[1, 1, 1, 1, 0]], [[0, 0, 1, 0, 0]]], dtype=bool)


def test_a_part_lies_on_its_whole_whatever_their_order():
    assert paint(NESTED_SHOWN, NESTED).tolist() == [[1, 1, 3, 2, 0]]
    assert hidden_pixels(NESTED_SHOWN, NESTED) == [0, 3, 0]


def test_a_pixel_painted_as_a_part_belongs_to_its_whole_too():
    map_ = np.array([[1, 1, 1, 2, 1]])  # the field is drawn over the heart, and into the last pixel
    found = annotated_masks(map_, structure_values(NESTED, None), NESTED_SHOWN, NESTED)
    assert found["lung_field_left"].tolist() == [[True, True, True, False, True]]
    assert found["lung_left"].tolist() == [[True] * 5] and "heart" not in found
    alone = annotated_masks(np.array([[1, 1, 0, 0, 1]]), structure_values(NESTED, None), NESTED_SHOWN, NESTED)
    assert list(alone) == ["lung_field_left"]  # of a lung that isn't in the map nothing is known


def test_a_lung_stays_behind_a_heart_that_is_drawn_larger():
    found = annotated_masks(np.array([[1, 3, 3, 2, 3]]), structure_values(NESTED, None), NESTED_SHOWN, NESTED)
    assert found["heart"].tolist() == [[False, True, True, False, True]]
    assert found["lung_left"].tolist() == [[True, True, True, True, False]]  # the last pixel was none of the lung's
    assert found["lung_field_left"].tolist() == [[True, False, False, False, False]]


HIDDEN_SHOWN = np.array([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[0, 0, 1, 1]]], dtype=bool)  # no pixel shows the lung itself


@pytest.mark.parametrize(
    ("edited", "lung"),
    [
        ([1, 1, 3, 3], [True, True, True, False]),  # unchanged
        ([0, 1, 3, 3], [False, True, True, False]),  # the field's edge corrected
        ([1, 1, 1, 3], [True, True, True, False]),  # the heart's
        ([1, 1, 0, 0], None),  # a field alone: what lies behind the heart isn't drawn
        ([0, 0, 0, 3], None),
    ],
)
def test_a_lung_that_others_hide_wholly_is_known_while_they_cover_it(edited, lung):
    found = annotated_masks(np.array([edited]), structure_values(NESTED, None), HIDDEN_SHOWN, NESTED)
    assert "lung_left" not in found if lung is None else found["lung_left"].tolist() == [lung]


def test_an_unchanged_map_gives_the_masks_that_it_was_painted_from():
    found = annotated_masks(paint(SHOWN, NAMES), structure_values(NAMES, None), SHOWN, NAMES)
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
