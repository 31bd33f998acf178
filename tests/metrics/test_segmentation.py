"""Metrics of segmented films, counted by hand, and intervals by patient."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from cxw_monai.metrics import segmentation as segmentation_metrics
from cxw_monai.metrics.segmentation import bootstrap_means, film_metrics, summarise, surface_distances


def rectangle(top=10, left=10, height=10, width=20):
    mask = np.zeros((40, 50), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def one(pred, label, spacing_mm=None, known=True):
    """Metrics of a film with one structure, as floats."""
    found = film_metrics(pred[None], label[None], np.array([known]), spacing_mm)
    return {name: value.item() for name, value in found.items()}


# The surface of 10 x 20 px is a ring of 56. Moved 3 columns to the right, its top and bottom rows have 17 px on the
# other ring and three at 1, 2 and 3 columns from it; the far column lies 3 columns off; the near column lies inside, 3
# columns off or less where the top or bottom is nearer: 1, 2, 3, 3, 3, 3, 2, 1 px at equal spacing.
@pytest.mark.parametrize(
    ("spacing", "unit", "hd95", "total"),
    [
        (None, "px", 3.0, 2 * 6 + 8 * 3 + 18),
        ((1.0, 1.0), "mm", 3.0, 2 * 6 + 8 * 3 + 18),
        ((0.4, 0.4), "mm", 1.2, 0.4 * 54),
        ((2.0, 0.5), "mm", 1.5, 2 * 3 + 8 * 1.5 + 8 * 1.5),  # a row is farther than the three columns
    ],
)
def test_a_rectangle_moved_by_three_columns(spacing, unit, hd95, total):
    found = one(rectangle(left=13), rectangle(), spacing)
    assert found["dice"] == pytest.approx(2 * 170 / 400)
    assert found["dice_positives"] == found["dice_nonempty"] == found["dice"]
    assert found["iou"] == pytest.approx(170 / 230)
    assert found[f"hd95_{unit}"] == pytest.approx(hd95)
    assert found[f"asd_{unit}"] == pytest.approx(total / 56)
    other = "mm" if unit == "px" else "px"
    assert np.isnan(found[f"hd95_{other}"]) and np.isnan(found[f"asd_{other}"])
    assert (found["label_px"], found["pred_px"]) == (200, 200)
    assert np.isnan(found["false_positive_rate"])


@pytest.mark.parametrize(("rows", "columns", "expected"), [(2, 0, 4.0), (0, 2, 1.0)])
def test_row_and_column_spacing_are_not_confused(rows, columns, expected):
    hd95, _ = surface_distances(rectangle(10 + rows, 10 + columns), rectangle(), (2.0, 0.5))
    assert hd95 == pytest.approx(expected)


def test_hd95_leaves_out_a_speck_and_the_average_does_not():
    pred = rectangle()
    pred[10, 39] = True  # 10 columns from the label: one of 57 surface pixels, less than 5 %
    assert surface_distances(pred, rectangle()) == pytest.approx((0.0, 10 / (57 + 56)))


def test_distances_are_those_of_monai():
    generator = np.random.default_rng(0)
    for spacing in (None, (0.7, 1.9)):
        fields = gaussian_filter(generator.standard_normal((2, 48, 40)), (0, 4, 4))
        pred, label = fields > 0  # blobs, some cut by the film's edge
        batch = [torch.from_numpy(mask)[None, None].float() for mask in (pred, label)]
        common = {"include_background": True, "spacing": None if spacing is None else list(spacing)}
        hd95 = compute_hausdorff_distance(*batch, percentile=95, **common).item()
        asd = compute_average_surface_distance(*batch, symmetric=True, **common).item()
        assert hd95 > asd > 0
        assert surface_distances(pred, label, spacing) == pytest.approx((hd95, asd), rel=1e-5)


def test_empty_masks():
    empty, full = np.zeros((40, 50), bool), rectangle()
    both, missed, invented = one(empty, empty, (1, 1)), one(empty, full, (1, 1)), one(full, empty, (1, 1))
    assert (both["dice"], both["iou"], both["false_positive_rate"]) == (1, 1, 0)
    assert np.isnan([both["dice_nonempty"], both["dice_positives"]]).all()
    assert (missed["dice"], missed["dice_nonempty"], missed["dice_positives"], missed["iou"]) == (0, 0, 0, 0)
    assert np.isnan(missed["false_positive_rate"])
    assert (invented["dice"], invented["dice_nonempty"], invented["iou"]) == (0, 0, 0)
    assert np.isnan(invented["dice_positives"]) and invented["false_positive_rate"] == 1
    assert np.isnan([film[name] for film in (both, missed, invented) for name in ("hd95_mm", "asd_mm")]).all()
    with pytest.raises(ValueError, match="not empty"):
        surface_distances(empty, full)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"known \[S\], got \(1, 40, 50\), \(1, 40, 50\) and \(2,\)"):
        film_metrics(rectangle()[None], rectangle()[None], np.array([True, True]))


def stacked(*films):
    """Values of films of one structure: `[N, 1]` by name."""
    return {name: np.array([[film[name]] for film in films]) for name in films[0]}


def test_what_is_counted_and_averaged():
    empty, full = np.zeros((40, 50), bool), rectangle()
    films = (
        one(rectangle(left=13), full, (2.0, 0.5)),  # HD95 1.5 mm
        one(rectangle(left=13), full, (0.4, 0.4)),  # HD95 1.2 mm
        one(rectangle(left=12), full),  # HD95 2 px
        one(empty, full, (1, 1)),
        one(full, empty),
        one(empty, empty),
        one(full, empty, known=False),
    )
    row, total = summarise(stacked(*films), ["a", "a", "b", None, None, "a", "c"], ["heart"])
    assert (row.structure, total.structure) == ("heart", "all")
    assert row.counts == {
        "films": 6, "patients": 4, "positives": 4, "negatives": 2, "unknown": 1, "hd95_undefined": 2
    }  # fmt: skip
    assert total.counts == {**row.counts, "films": 7, "patients": 5}
    found = {name: (estimate.mean, estimate.films) for name, estimate in row.metrics.items()}
    assert found["dice"] == (pytest.approx((0.85 + 0.85 + 0.9 + 0 + 0 + 1) / 6), 6)
    assert found["dice_nonempty"] == (pytest.approx((0.85 + 0.85 + 0.9 + 0 + 0) / 5), 5)
    assert found["dice_positives"] == (pytest.approx((0.85 + 0.85 + 0.9 + 0) / 4), 4)
    assert found["hd95_mm"] == (pytest.approx(1.35), 2)
    assert found["hd95_px"] == (pytest.approx(2.0), 1)
    assert found["false_positive_rate"] == (0.5, 2)
    assert row.metrics["hd95_mm"].low is None  # both films are of one patient
    assert row.metrics["dice"].low < found["dice"][0] < row.metrics["dice"].high


def test_over_all_structures_each_counts_the_same():
    """Three films know the heart, one the lung too."""
    values = {name: np.array([[0.2, 0.9], [0.4, np.nan], [0.6, np.nan]]) for name in stacked(one(*[rectangle()] * 2))}
    values["hd95_px"] = np.full((3, 2), np.nan)
    *_, total = summarise(values, ["a", "b", "c"], ["heart", "lung"])
    assert total.metrics["dice"].mean == pytest.approx((0.4 + 0.9) / 2)
    assert total.metrics["dice"].films == 4
    assert "hd95_px" not in total.metrics


def test_patients_are_resampled_with_all_their_films():
    """Three films of one patient are 0, one of the other 1: a mean is 0, 1/4 or 1, at 1/4, 1/2 and 1/4."""
    means = bootstrap_means(np.array([[0.0], [0.0], [0.0], [1.0]]), np.array([0, 0, 0, 1]), 4000, seed=1)
    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0, 0.25, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_interval_is_that_of_a_mean_of_many_patients():
    """Normal values with a standard deviation of 1: about 1.96 / sqrt(400) to either side."""
    values = np.random.default_rng(3).standard_normal((400, 1))
    values = (values - values.mean()) / values.std()
    low, high = np.percentile(bootstrap_means(values, np.arange(400), 4000), [2.5, 97.5])
    assert (low, high) == (pytest.approx(-0.098, abs=0.006), pytest.approx(0.098, abs=0.006))


def test_draws_depend_on_the_seed_alone(monkeypatch):
    values = np.random.default_rng(0).random((30, 4))
    values[::3, 1] = np.nan
    values[1:, 2] = np.nan
    first = bootstrap_means(values, np.arange(30) % 7, 100, seed=5)
    monkeypatch.setattr(segmentation_metrics, "DRAWS_AT_ONCE", 7 * 9)  # nine draws at a time
    np.testing.assert_allclose(first, bootstrap_means(values, np.arange(30) % 7, 100, seed=5), rtol=1e-12)
    assert not np.array_equal(first[:, 0], bootstrap_means(values, np.arange(30) % 7, 100, seed=6)[:, 0])
    assert 0 < np.isnan(first[:, 2]).sum() < 100  # draws without the one patient who has a value
    assert not np.isnan(first[:, 1]).any()


def test_nothing_can_be_summarised_without_films():
    with pytest.raises(ValueError, match="no films"):
        summarise({}, [], ["heart"])


def test_an_interval_is_that_of_its_own_metric_and_structure():
    generator = np.random.default_rng(0)
    values = {name: generator.random((6, 2)) for name in (*segmentation_metrics.METRICS, "label_px", "pred_px")}
    rows = summarise(values, list("abcdef"), ["heart", "lung"], draws=200, seed=3)
    for name in segmentation_metrics.METRICS:
        drawn = bootstrap_means(values[name], np.arange(6), 200, seed=3)  # [draws, S]
        for row, means in zip(rows, (drawn[:, 0], drawn[:, 1], drawn.mean(axis=1)), strict=True):
            found = row.metrics[name]
            assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
