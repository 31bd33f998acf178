"""The verdict: yes for an encoder that knows more, no for all that look like it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxw_monai.metrics.world import verdict
from cxw_monai.metrics.world.films import read_world_films
from cxw_monai.metrics.world.verdict import (
    Comparison,
    Contestant,
    Question,
    answer,
    choose_labels,
    compare,
    depends_on_more_than_the_film,
    pixel_contestant,
    questions,
)

GRID, SIZE, FILMS = (4, 4), (64, 64), 48


def film(n: int) -> np.ndarray:
    """64 x 64 px of random shades; films of the second half have stripes that 16 x 16 pixels can't show."""
    rng = np.random.default_rng(n)
    shade = np.kron(rng.uniform(0.3, 0.7, (4, 4)), np.ones((32, 32)))
    sign = 1 if rng.integers(2) else -1  # a linear map of the film doesn't see them either
    stripes = 0.08 * sign * np.where(np.arange(128) // 4 % 2, 1, -1)[None] * (n >= FILMS // 2)
    return np.rint(255 * (shade + stripes))[None].astype(np.uint8)


@pytest.fixture(scope="module")
def films():
    """Sorted by the label, as many folders are; `noise_*` are labels that mean nothing."""
    rng = np.random.default_rng(5)
    items = [
        {"image": f"{n}.png", "label_stripes": int(n >= FILMS // 2)}
        | {f"label_noise_{k}": int(rng.integers(2)) for k in range(4)}
        for n in range(FILMS)
    ]
    return read_world_films(items, SIZE, decoded=film)


def contestant(vector, name="this encoder"):
    return Contestant(name, vector, lambda images: torch.zeros(len(images), 16, 1))


def striped(images):
    """Mean difference of neighbouring columns, and nothing else."""
    return (images[..., 1:] - images[..., :-1]).abs().mean(dim=(1, 2, 3))[:, None].numpy()


def projected(seed):
    def vector(images):
        weights = torch.randn(64 * 64, 12, generator=torch.Generator().manual_seed(seed))
        return torch.tanh(images.flatten(1) @ weights / 8).numpy()

    return contestant(vector, f"random {seed}")


class FileOrder:
    """Gives films their number in the order in which they are shown."""

    def __init__(self):
        self.count = 0

    def __call__(self, images):
        self.count += len(images)
        return np.arange(self.count - len(images), self.count, dtype=float)[:, None]


RANDOMS = [projected(seed) for seed in range(verdict.NETWORKS)]


def said(own, films, labels):
    asked = questions(films, SIZE, GRID, labels)
    found = compare(own, RANDOMS, pixel_contestant(GRID), asked)
    return answer(found, len(films), not depends_on_more_than_the_film(own, films))[0]


def test_yes_for_an_encoder_that_sees_more_than_pixels(films):
    assert said(contestant(striped), films, ["label_stripes"]) == "yes"


def test_no_for_one_more_random_network(films):
    assert said(projected(7), films, ["label_stripes"]) == "no"


def test_no_for_a_network_that_knows_the_order_of_the_files(films):
    assert said(contestant(FileOrder()), films, ["label_stripes"]) == "no"
    asked = questions(films, SIZE, GRID, ["label_stripes"])
    alone = compare(contestant(FileOrder()), RANDOMS, pixel_contestant(GRID), asked)
    assert all(one.outcome != "ahead" for one in alone)  # and not because it was caught


def test_no_by_the_luckiest_of_many_labels(films):
    noise = [f"label_noise_{k}" for k in range(4)]
    assert len(questions(films, SIZE, GRID, noise)) == 1  # one question, whose number is the mean over labels
    assert said(contestant(striped), films, noise) == "no"


def with_rows(films, rows):
    return verdict.WorldFilms(rows, films.patients, films.pixels, films.shapes, films.spacing_mm, [])


def test_labels_are_found_and_rare_ones_left_out(films):
    names, left_out = choose_labels(films)
    assert names == ["label_stripes", *(f"label_noise_{k}" for k in range(4))] and not left_out
    assert "5 labels" in questions(films, SIZE, GRID, names)[0].measure
    assert [one.name for one in questions(films, SIZE, GRID)] == ["place", "correspondence", "film"]
    rare = with_rows(films, [{**row, "label_stripes": int(n < 5), "age": n} for n, row in enumerate(films.rows)])
    assert choose_labels(rare, ["label_stripes", "age"]) == (
        [],
        {"label_stripes": "5 patients with the rarer value, 15 are needed", "age": "48 values, two are needed"},
    )


def test_the_ten_labels_with_most_patients_are_taken(films):
    rows = [{"image": f"{n}.png"} | {f"label_{k}": int(n < 16 + k % 6) for k in range(12)} for n in range(FILMS)]
    names, left_out = choose_labels(with_rows(films, rows))
    assert names == [f"label_{k}" for k in range(12) if k % 6]  # all but those with 16 patients
    assert left_out == dict.fromkeys(("label_0", "label_6"), "10 others are less rare")


def by_name(table):
    """A question whose numbers, the same in all resamplings, are those of a table."""
    return Question("q", "m", lambda each: np.full(5, table[each.name]))


def outcomes(own, randoms, pixels=0.0):
    names = [f"random {n}" for n in range(len(randoms))]
    table = dict(zip(names, randoms, strict=True)) | {"own": own, "16 x 16 pixels": pixels}
    contestants = [contestant(None, name) for name in names]
    found = compare(contestant(None, "own"), contestants, pixel_contestant(GRID), [by_name(table)])
    return [one.outcome for one in found]


def test_ahead_of_random_networks_takes_more_than_their_spread():
    randoms = [0.50, 0.52, 0.54, 0.60]
    assert outcomes(0.69, randoms) == ["level", "ahead"]
    assert outcomes(0.71, randoms) == ["ahead", "ahead"]
    assert outcomes(0.59, randoms, pixels=0.62) == ["behind", "behind"]


def test_one_more_random_network_seldom_passes_the_margin():
    draws = np.random.default_rng(0).standard_normal((400, 1 + verdict.NETWORKS))
    passed = [outcomes(own, others)[0] == "ahead" for own, *others in draws]
    assert 0 < np.mean(passed) < 0.06  # without the margin one in five


def comparison(question, baseline, outcome, difference=0.1):
    return Comparison(question, "", baseline, 0.8, 0.7, difference, 0.05, 0.15, 0.0, outcome)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([("labels", "random", "ahead"), ("labels", "pixels", "ahead")], "yes"),
        ([("labels", "random", "ahead"), ("labels", "pixels", "level")], "no"),
        ([("a", "r", "ahead"), ("a", "p", "ahead"), ("b", "r", "ahead"), ("b", "p", "level")], "no"),
        ([(q, b, "ahead") for q in "ab" for b in "rp"] + [("c", "r", "level"), ("c", "p", "ahead")], "yes"),
        ([(q, b, "ahead") for q in "ab" for b in "rp"] + [("c", "r", "behind"), ("c", "p", "ahead")], "no"),
        ([], "cannot tell"),
    ],
)
def test_the_answer_by_outcomes(outcomes, expected):
    assert answer([comparison(*one) for one in outcomes], 30)[0] == expected
