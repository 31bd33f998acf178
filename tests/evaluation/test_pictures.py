"""Which films a run's first picture shows."""

from __future__ import annotations

import pytest

from cxw_monai.evaluation.pictures import spread


@pytest.mark.parametrize(("length", "count"), [(4, 4), (5, 4), (1000, 4), (1, 1)])
def test_one_film_of_each_part_is_shown(length, count):
    for seed in range(20):
        films = spread(length, count, seed)
        parts = [next(p for p in range(count) if film < length * (p + 1) // count) for film in films]
        assert parts == list(range(count))


def test_the_films_follow_the_seed_and_are_not_the_first_four():
    assert spread(1000, 4, 3) == spread(1000, 4, 3) != spread(1000, 4, 4)
    assert max(spread(1000, 4, 0)) >= 750
