"""Seeding per (epoch, image) and the epoch sampler."""

from __future__ import annotations

import pickle
import re
import threading

import numpy as np
import pytest
import torch
from monai.transforms import Compose, MapTransform, Randomizable
from torch.utils.data import DataLoader

from cxw_monai.data.cache import build_cache
from cxw_monai.data.dataset import EpochSampler, source_mix
from cxw_monai.data.manifest import find_images
from cxw_monai.tasks.pretraining.dataset import ViewPairDataset


class RandCornerd(Randomizable, MapTransform):
    """A stand-in for a view pair: a random 4x4 crop and a random number."""

    def randomize(self, shape):
        self.at = [int(self.R.randint(0, side - 3)) for side in shape]
        self.number = float(self.R.uniform())

    def __call__(self, data):
        image = data["image"]
        self.randomize(image.shape[1:])
        row, column = self.at
        crop = image[:, row : row + 4, column : column + 4].astype(np.float32)
        return {"crop": torch.tensor(crop), "number": self.number, "index": data["index"]}


class RandNumberd(Randomizable, MapTransform):
    def __call__(self, data):
        return {**data, "second": float(self.R.uniform())}


@pytest.fixture
def cache(radiograph_folder, tmp_path):
    return build_cache(find_images(radiograph_folder), tmp_path / "cache", progress=False)


def _transform():
    return Compose([RandCornerd("image"), RandNumberd("image")])


def _same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])), name


def test_a_sample_depends_on_seed_epoch_and_index_only(cache):
    keys = [(epoch, index) for epoch in range(3) for index in range(12)]
    forward, backward = ViewPairDataset(cache, _transform(), seed=5), ViewPairDataset(cache, _transform(), seed=5)
    first = {key: forward[key] for key in keys}
    second = {key: backward[key] for key in reversed(keys)}
    for key in keys:
        _same(first[key], second[key])
        assert first[key]["index"] == key[1]
    numbers = {sample[name] for sample in first.values() for name in ("number", "second")}
    assert len(numbers) == 2 * len(keys)  # no stream is used twice
    assert ViewPairDataset(cache, _transform(), seed=6)[1, 3]["number"] != first[1, 3]["number"]
    _same(forward[3], first[0, 3])


def test_the_transform_sees_the_cached_image(cache):
    sample = ViewPairDataset(cache, lambda data: data)[0, 7]
    assert sample.keys() == {"image", "index"}
    np.testing.assert_array_equal(sample["image"], cache.image(7))


def test_bad_indices_and_seeds(cache):
    dataset = ViewPairDataset(cache, _transform())
    assert len(dataset) == 12
    for key in (12, -1, (0, 12)):
        with pytest.raises(IndexError, match=r"outside 0\.\.11"):
            dataset[key]
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        ViewPairDataset(cache, _transform(), seed=-1)


def _epochs(dataset, sampler, workers, epochs=2):
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers)
    batches = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def test_loader_workers_do_not_change_the_numbers(cache):
    runs = [
        _epochs(ViewPairDataset(cache, _transform(), seed=1), EpochSampler(12, seed=1), workers) for workers in (0, 2)
    ]
    assert len(runs[0]) == len(runs[1]) == 8
    for left, right in zip(*runs, strict=True):
        _same(left, right)
    assert not torch.equal(runs[0][0]["number"], runs[0][4]["number"])  # epochs differ


def test_a_resumed_epoch_continues_with_the_same_samples(cache):
    dataset, sampler = ViewPairDataset(cache, _transform(), seed=1), EpochSampler(12, seed=1)
    whole = _epochs(dataset, sampler, 0)[4:]
    sampler.set_epoch(1, start=6)
    resumed = list(DataLoader(ViewPairDataset(cache, _transform(), seed=1), batch_size=3, sampler=sampler))
    assert len(resumed) == 2 and len(sampler) == 12
    for left, right in zip(whole[2:], resumed, strict=True):
        _same(left, right)


def test_threads_have_transforms_of_their_own(cache):
    class Slow(RandCornerd):
        def __call__(self, data):
            barrier.wait(timeout=300)  # both threads have set their random state
            return super().__call__(data)

        def __deepcopy__(self, memo):
            return Slow("image")

    barrier = threading.Barrier(2)
    dataset, results = ViewPairDataset(cache, Slow("image"), seed=3), {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: dataset[0, i]})) for i in (4, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = ViewPairDataset(cache, RandCornerd("image"), seed=3)
    for index in (4, 9):
        _same(results[index], expected[0, index])


def test_the_dataset_pickles_after_use(cache):
    dataset = ViewPairDataset(cache, _transform(), seed=2)
    sample = dataset[1, 1]
    _same(pickle.loads(pickle.dumps(dataset))[1, 1], sample)


def _keys(length, epoch=0, start=0, **options):
    sampler = EpochSampler(length, **options)
    sampler.set_epoch(epoch, start)
    return list(sampler)


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide():
    keys = _keys(50, epoch=2, seed=4)
    assert {epoch for epoch, _ in keys} == {2} and sorted(index for _, index in keys) == list(range(50))
    assert keys == _keys(50, epoch=2, seed=4)
    orders = [[i for _, i in _keys(50, epoch=epoch, seed=seed)] for epoch, seed in [(2, 4), (3, 4), (2, 5), (4, 2)]]
    assert all(a != b for n, a in enumerate(orders) for b in orders[:n])
    assert [i for _, i in _keys(5, shuffle=False)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("length", "world_size"), [(12, 3), (13, 3), (14, 3), (7, 4)])
def test_shards_are_equally_long_disjoint_and_cover(length, world_size):
    shards = [_keys(length, epoch=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = [index for shard in shards for _, index in shard]
    assert {len(shard) for shard in shards} == {length // world_size}
    assert len(set(together)) == len(together) == length - length % world_size
    padded = [_keys(length, epoch=1, rank=rank, world_size=world_size, drop_last=False) for rank in range(world_size)]
    assert {len(shard) for shard in padded} == {-(-length // world_size)}
    assert {index for shard in padded for _, index in shard} == set(range(length))


def test_padding_repeats_when_there_are_more_ranks_than_images():
    shards = [_keys(2, rank=rank, world_size=5, drop_last=False, shuffle=False) for rank in range(5)]
    assert shards == [[(0, 0)], [(0, 1)], [(0, 0)], [(0, 1)], [(0, 0)]]


def test_start_skips_what_this_rank_has_used_and_the_next_epoch_is_whole():
    sampler = EpochSampler(20, seed=3, rank=1, world_size=2)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.set_epoch(4, start=7)
    assert list(sampler) == whole[7:] and len(sampler) == 10
    sampler.set_epoch(4, start=10)
    assert list(sampler) == []
    sampler.set_epoch(5)
    assert len(list(sampler)) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more"),
        ({"rank": 2, "world_size": 2}, "rank must lie in"),
        ({"world_size": 0}, "rank must lie in"),
        ({"world_size": 11}, "10 images for 11 processes"),
    ],
)
def test_sampler_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        EpochSampler(10, **options)


def test_set_epoch_arguments_are_checked():
    sampler = EpochSampler(10)
    with pytest.raises(ValueError, match="epoch must be 0 or more, got -1"):
        sampler.set_epoch(-1)
    with pytest.raises(ValueError, match=r"start must lie in 0\.\.10, got 11"):
        sampler.set_epoch(0, start=11)


def _mixed(epoch, world_size=1, rank=0):
    mix = source_mix(["a"] * 3 + ["b"] * 10, {"a": 2, "b": 1}, 12)  # 8 of three films, 4 of ten
    sampler = EpochSampler(13, seed=1, rank=rank, world_size=world_size, mix=mix)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_shares_of_sources_decide_what_an_epoch_takes():
    seen = [key for epoch in range(15) for key in _mixed(epoch)]
    assert len(seen) == 15 * 12
    assert len(set(seen)) == len(seen)  # a film that comes twice in an epoch is drawn anew
    counts = np.bincount([index for _, index in seen], minlength=13)
    assert counts.tolist() == [40, 40, 40] + [6] * 10  # 15 epochs of 8 and 4, each film of a source equally often
    assert [sum(index < 3 for _, index in _mixed(epoch)) for epoch in range(4)] == [8] * 4


def test_a_mixed_epoch_is_the_same_again_and_shared_out_among_processes():
    assert _mixed(3) == _mixed(3)
    assert _mixed(3) != _mixed(4)
    assert sorted(_mixed(2)) == sorted(_mixed(2, 2, 0) + _mixed(2, 2, 1))


@pytest.mark.parametrize(
    ("shares", "films", "message"),
    [
        ({"a": 1}, None, "must name each source of the films: ['a', 'b']"),
        ({"a": 1, "b": 1, "c": 1}, None, "must name each source"),
        ({"a": 1, "b": 0}, None, "must be above 0"),
        ({"a": 1, "b": 1}, 1, "at least the number of sources, 2"),
    ],
)
def test_shares_that_do_not_fit_the_films_are_refused(shares, films, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        source_mix(["a", "b"], shares, films)
