"""Outlines as a reader draws them, from masks whose answer is known by hand."""

import numpy as np
import pytest

from cxw_monai.rendering.silhouettes import SILHOUETTES, silhouettes

SIZE = 128


def rectangle(top, bottom, left, right):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


def outlines_of(masks, pixel_mm):
    """Outlines where every lung is 100 mm deep."""
    depths = {name: 100.0 * masks[name] for name in ("lung_left", "lung_right") if name in masks}
    return silhouettes(masks, depths, pixel_mm)


def test_a_lung_ends_at_the_dome_but_goes_down_beside_it():
    masks = {"lung_right": rectangle(10, 100, 20, 60), "abdomen": rectangle(70, 120, 32, 60)}
    outline = outlines_of(masks, 2.0)["lung_right"]
    expected = masks["lung_right"] & ~masks["abdomen"]
    np.testing.assert_array_equal(outline, expected)
    assert outline[90, 20:32].all() and not outline[90, 32:].any()  # the costophrenic angle stays


def test_what_lies_below_a_gap_in_the_abdomen_is_no_lung():
    abdomen = rectangle(70, 80, 20, 60)
    outline = outlines_of({"lung_left": rectangle(10, 100, 20, 60), "abdomen": abdomen}, 2.0)["lung_left"]
    assert outline[:70].any() and not outline[70:].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lung_ends_at_the_edge_of_the_spine(side):
    """The last 16 columns towards the midline are thin, lateral ones too: only the medial ones go."""
    lung = rectangle(10, 110, 64, 120)
    depth = np.where(lung, 100.0, 0.0)
    depth[:, 64:80] = depth[:, 112:120] = 20.0
    if side == "right":
        lung, depth = lung[:, ::-1], depth[:, ::-1]
    outline = silhouettes({f"lung_{side}": lung}, {f"lung_{side}": depth}, 1.0)[f"lung_{side}"]
    expected = rectangle(10, 110, 80, 120)
    np.testing.assert_array_equal(outline, expected[:, ::-1] if side == "right" else expected)


def test_a_lung_thin_everywhere_keeps_its_outline():
    lung = rectangle(10, 60, 20, 60)
    outline = silhouettes({"lung_left": lung}, {"lung_left": 20.0 * lung}, 1.0)["lung_left"]
    np.testing.assert_array_equal(outline, lung)


def test_a_notch_in_the_medial_border_is_evened_out():
    lung = rectangle(10, 110, 40, 100)
    depth = 100.0 * lung
    depth[60:62, 40:70] = 20.0  # two rows where a vessel hides the lung
    outline = silhouettes({"lung_left": lung}, {"lung_left": depth}, 1.0)["lung_left"]
    assert outline[61, 46:].sum() == outline[30, 46:].sum() and 40 <= outline[61].argmax() <= 46


def test_a_crumb_beside_the_lung_is_left_out():
    masks = {"lung_left": rectangle(10, 60, 20, 60) | rectangle(80, 90, 100, 110)}
    np.testing.assert_array_equal(outlines_of(masks, 2.0)["lung_left"], rectangle(10, 60, 20, 60))


def test_a_lung_goes_on_behind_the_heart_and_its_field_ends_there():
    masks = {"lung_left": rectangle(10, 100, 60, 110), "heart": rectangle(50, 90, 30, 80)}
    found = outlines_of(masks, 2.0)
    np.testing.assert_array_equal(found["lung_left"], masks["lung_left"])
    assert found["lung_left"][70, 60:80].all() and not found["lung_field_left"][70, 60:78].any()
    np.testing.assert_array_equal(
        found["lung_field_left"], masks["lung_left"] & ~found["heart"] & ~found["mediastinum"]
    )
    assert found["lung_field_left"][20, 60:110].all() and found["lung_field_left"][70, 80:110].all()
    assert set(outlines_of({"lung_left": masks["lung_left"]}, 2.0)) == {
        "lung_left"
    }  # without a heart no field is known


def test_mediastinum_takes_vessels_above_the_hearts_lowest_row_only():
    heart, aorta = rectangle(60, 100, 40, 90), rectangle(20, 125, 48, 82)
    outline = outlines_of({"heart": heart, "aorta": aorta}, 1.0)["mediastinum"]
    assert not outline[101:].any()
    assert outline[34:100, 54:76].all()
    assert (outline & ~(heart | aorta)).sum() > 0  # the corners between them are rounded off
    assert not outline[30, :48].any()


def test_thin_vessels_are_cut_off():
    heart, vessel = rectangle(50, 100, 40, 90), rectangle(70, 76, 90, 120)
    outline = outlines_of({"heart": heart | vessel}, 1.0)["mediastinum"]
    assert outline[72, 60] and not outline[:, 108:].any()


def test_a_hearts_outline_has_its_body_without_its_veins():
    heart, vein = rectangle(50, 100, 40, 90), rectangle(70, 76, 20, 40)
    outline = outlines_of({"heart": heart | vein}, 1.0)["heart"]
    assert outline[60:90, 50:80].all() and not outline[:, :38].any()


def test_a_heart_cut_by_the_pictures_edge_stays():
    heart = rectangle(60, SIZE, 40, 90)
    outline = outlines_of({"heart": heart}, 1.0)["mediastinum"]
    assert outline[-1, 50:80].all()


def test_only_what_can_be_made_is_made():
    assert outlines_of({}, 1.0) == {}
    assert set(outlines_of({"ribs": rectangle(0, 5, 0, 5)}, 1.0)) == set()
    everything = {name: rectangle(20, 60, 20, 60) for name in ("lung_left", "lung_right", "heart")}
    assert set(outlines_of(everything, 1.0)) == set(SILHOUETTES)


@pytest.mark.parametrize("name", SILHOUETTES)
def test_empty_organs_give_empty_outlines(name):
    empty = np.zeros((SIZE, SIZE), bool)
    outlines = outlines_of(dict.fromkeys(("lung_left", "lung_right", "heart", "aorta", "abdomen"), empty), 1.0)
    assert not outlines[name].any() and outlines[name].shape == (SIZE, SIZE)
