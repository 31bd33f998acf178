"""Whole films and masks at a network's size: the function, and its dictionary form."""

import numpy as np
import pytest
import torch

from cxw_monai.transforms.whole_film import WholeFilmd, whole_film, whole_masks


def test_a_film_without_masks_is_only_resized():
    out = WholeFilmd((12, 10))({"image": np.full((1, 24, 30), 255, np.uint8)})
    assert set(out) == {"image"} and out["image"].shape == (1, 12, 10)
    torch.testing.assert_close(out["image"], torch.ones(1, 12, 10))


def test_a_whole_film_keeps_edges_on_edges():
    """A ramp over the film is the same ramp at another size: pixel x of n holds (x + 0.5) / n."""
    rows, columns = (np.arange(64) + 0.5) / 64, (np.arange(96) + 0.5) / 96
    film = (0.75 * rows[:, None] + 0.25 * columns)[None].astype(np.float32)
    for size in ((16, 12), (80, 120)):
        seen = WholeFilmd(size)({"image": film})["image"]
        down, across = ((torch.arange(n) + 0.5) / n for n in size)
        wanted = 0.75 * down[:, None] + 0.25 * across
        torch.testing.assert_close(seen[0, 3:-3, 3:-3], wanted[3:-3, 3:-3], atol=1e-5, rtol=0)


def test_a_whole_film_at_a_small_size_is_averaged_and_not_picked_from():
    checkers = (np.indices((256, 256)).sum(axis=0)[None] % 2).astype(np.float32)
    seen = WholeFilmd(32)({"image": checkers})["image"]
    torch.testing.assert_close(seen, torch.full((1, 32, 32), 0.5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(24, 30), (12, 10), (31, 7)])
def test_the_dictionary_form_is_the_functions(size):
    rng = np.random.default_rng(0)
    film, masks = rng.integers(0, 65536, (1, 24, 30)).astype(np.uint16), rng.integers(0, 2, (2, 24, 30)).astype(bool)
    sample = WholeFilmd(size)({"image": film, "label": masks, "other": 1})
    assert torch.equal(sample["image"], whole_film(film, size)) and sample["image"].shape == (1, *size)
    assert torch.equal(sample["label"], whole_masks(masks, size)) and sample["other"] == 1
    assert sample["label"].unique().tolist() == [0, 1]
    assert sample["image"].min() >= 0 and sample["image"].max() <= 1
    assert film.max() > 1  # as it was


def test_a_film_that_has_the_size_keeps_its_values():
    film = np.random.default_rng(0).random((1, 8, 9), dtype=np.float32)
    seen = whole_film(film, (8, 9))
    assert torch.equal(seen, torch.from_numpy(film))
    seen.zero_()
    assert film.any()  # its own memory
