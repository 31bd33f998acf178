"""Which films a run's first picture shows."""

from __future__ import annotations

import pytest

from cxw_monai.tasks.pretraining.pictures import draw_world_views, spread


@pytest.mark.parametrize(("length", "count"), [(4, 4), (5, 4), (1000, 4), (1, 1)])
def test_one_film_of_each_part_is_shown(length, count):
    for seed in range(20):
        films = spread(length, count, seed)
        parts = [next(p for p in range(count) if film < length * (p + 1) // count) for film in films]
        assert parts == list(range(count))


def test_the_films_follow_the_seed_and_are_not_the_first_four():
    assert spread(1000, 4, 3) == spread(1000, 4, 3) != spread(1000, 4, 4)
    assert max(spread(1000, 4, 0)) >= 750


class Shown(Exception):
    """The key of a film that is drawn."""


class Films:
    seed = 5

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, key: tuple[int, int]) -> dict[str, object]:
        raise Shown(key)


class Masks:
    def sample(self, count: int) -> None:
        return None


def test_the_picture_of_world_views_shows_these_films(tmp_path):
    with pytest.raises(Shown) as shown:
        draw_world_views(Films(), Masks(), tmp_path / "world_views.png", count=4, epoch=2)
    assert shown.value.args == ((2, spread(1000, 4, 5)[0]),) and spread(1000, 4, 5)[0] > 0
