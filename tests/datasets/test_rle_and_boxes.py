"""Run lengths and filled boxes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cxw_monai.data.schema import Box
from cxw_monai.datasets.masks import fill_boxes
from cxw_monai.datasets.rle import decode_rle

MASK = np.array(
    [
        [0, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 1],
    ],
    dtype=bool,
)
# Down the columns: 0 1 1 | 1 1 0 | 0 0 0 | 0 0 1: runs at 1 (4 pixels) and 11 (1). Along the rows: 1; 4, 5; 8; 11.
ENCODINGS = [
    ({"order": "columns"}, "2 4 12 1"),
    ({"order": "columns", "relative": True}, "1 4 6 1"),
    ({"order": "rows"}, "2 1 5 2 9 1 12 1"),
    ({"order": "rows", "relative": True}, "1 1 2 2 2 1 2 1"),
]


def encode_rle(mask, *, order="columns", relative=False):
    """The inverse of decode_rle: the runs read off the mask."""
    flat = (np.asarray(mask) != 0).ravel(order={"columns": "F", "rows": "C"}[order]).astype(np.int8)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    starts, ends = changes[::2], changes[1::2]
    before = np.concatenate([[0], ends[:-1]])[: starts.size] if relative else -1
    return " ".join(str(n) for pair in zip(starts - before, ends - starts, strict=True) for n in pair)


@pytest.mark.parametrize(("form", "text"), ENCODINGS)
def test_runs_both_ways(form, text):
    assert np.array_equal(decode_rle(text, 3, 4, **form), MASK)
    assert encode_rle(MASK, **form) == text


@pytest.mark.parametrize("form", [form for form, _ in ENCODINGS])
def test_random_empty_and_full_masks_come_back(form):
    noise = np.random.default_rng(3).random((17, 23)) < 0.4
    for mask in (noise, np.zeros((5, 2), bool), np.ones((5, 2), bool)):
        assert np.array_equal(decode_rle(encode_rle(mask, **form), *mask.shape, **form), mask)


def test_overlapping_runs_are_united():
    assert decode_rle("1 3 2 3", 1, 6, order="rows").tolist() == [[True] * 4 + [False] * 2]


@pytest.mark.parametrize(
    ("text", "relative", "message"),
    [
        ("1 2 3", False, "come in pairs, got 3"),
        ("1 0", False, "must be positive"),
        ("0 1", False, "outside the 3 x 4 image"),
        ("12 2", False, "outside the 3 x 4 image"),
        ("5 1 -2 1", True, "starts not negative"),
        ("5 4 2 2", True, "outside the 3 x 4 image"),
    ],
)
def test_malformed_runs_are_refused(text, relative, message):
    with pytest.raises(ValueError, match=message):
        decode_rle(text, 3, 4, order="columns", relative=relative)


def test_boxes_take_the_pixels_whose_centres_are_inside():
    mask = fill_boxes([Box("a", 1, 0, 2, 1), Box("b", 2.4, 0.6, 1.2, 1.0), Box("c", -5, 2, 6.2, 9)], 4, 5)
    expected = [
        [0, 1, 1, 0, 0],  # a: columns 1 and 2 of row 0
        [0, 0, 1, 1, 0],  # b: centres of columns 2 and 3 in [2.4, 3.6), of row 1 in [0.6, 1.6)
        [1, 0, 0, 0, 0],  # c: only column 0's centre is left of 1.2
        [1, 0, 0, 0, 0],
    ]
    assert mask.astype(int).tolist() == expected
    assert fill_boxes([Box("all", 0, 0, 5, 4)], 4, 5).all() and not fill_boxes([], 4, 5).any()
