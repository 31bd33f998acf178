"""Equal films hash equally, copies nearly so, others far apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxw_monai.quality.hashes import HASH_BITS, near_groups, perceptual_hash, pixel_hash


def film(seed: int, side: int = 128) -> np.ndarray:
    blobs = gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), sigma=8)
    return ((blobs - blobs.min()) / np.ptp(blobs)).astype(np.float32)


def test_pixel_hash_is_of_the_values_and_the_shape():
    grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
    eight, sixteen = grey / np.float32(255), (grey.astype(np.uint16) * 257) / np.float32(65535)
    assert pixel_hash(eight) == pixel_hash(sixteen)  # the same film in an 8- and a 16-bit file
    assert pixel_hash(eight) == pixel_hash(np.asfortranarray(eight))
    assert pixel_hash(eight) != pixel_hash(eight.reshape(16, 16))
    changed = eight.copy()
    changed[3, 3] += 1 / 255
    assert pixel_hash(eight) != pixel_hash(changed)


@pytest.mark.parametrize("gain, offset", [(0.5, 0.0), (0.8, 0.15), (1.0, 0.0)])
def test_brightness_and_contrast_leave_the_perceptual_hash(gain, offset):
    image = film(0)
    far = perceptual_hash(image) != perceptual_hash(image * np.float32(gain) + np.float32(offset))
    assert far.sum() <= 2


def test_size_hardly_changes_the_perceptual_hash_and_another_film_does():
    image = film(0)
    small = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC))
    own = perceptual_hash(image)
    assert own.shape == (HASH_BITS,) and own.dtype == bool and not own[0]
    assert (own != perceptual_hash(small)).sum() < 20
    assert (own != perceptual_hash(film(1))).sum() > 80
    assert (own != perceptual_hash(1 - image)).sum() > 240


def test_groups_are_linked_by_neighbours_and_stop_at_the_distance():
    hashes = np.zeros((5, HASH_BITS), dtype=bool)
    hashes[1, :4] = True  # 4 from 0
    hashes[2, :8] = True  # 4 from 1, 8 from 0
    hashes[3, :13] = True  # 5 from 2
    hashes[4] = True
    labels = near_groups(hashes, 4).tolist()
    assert labels[0] == labels[1] == labels[2] and len({labels[0], labels[3], labels[4]}) == 3
    assert len(set(near_groups(hashes, 3).tolist())) == 5
    assert near_groups(hashes[:0], 4).shape == (0,)


def test_groups_across_blocks_equal_all_pairs():
    rng = np.random.default_rng(0)
    hashes = rng.random((9000, HASH_BITS)) < 0.5  # three blocks
    hashes[8999] = hashes[5]
    hashes[8999, :7] ^= True
    hashes[4097] = hashes[4096]
    labels = near_groups(hashes, 8)
    assert labels[8999] == labels[5] and labels[4097] == labels[4096]
    assert len(set(labels.tolist())) == 9000 - 2
