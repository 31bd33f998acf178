"""The fit finds what tells the 16 ways apart, and pictures that are made up are what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality import calibrate
from benchmarks.quality.fitting import fit_network, thresholds_of
from benchmarks.quality.other_films import (
    KINDS_RENDERED,
    SIDE,
    SUBJECTS,
    altered,
    cut,
    drawn,
    frontal,
    rendered,
    tilted,
)
from benchmarks.quality.trial import confusion, verdict
from cxw_monai.quality.film_model import FilmModel, default_model, thumbnail


def scene(seed: int) -> np.ndarray:
    """A bright L on a ramp, not the same in any two of the 16 ways."""
    rng = np.random.default_rng(seed)
    film = np.linspace(0.1, 0.5, SIDE)[:, None] + rng.normal(0, 0.05, (SIDE, SIDE))
    film[20:110, 20:40] += 0.4
    film[90:110, 20:90] += 0.4
    return np.rint(np.clip(film, 0, 1) * 255).astype(np.uint8)


def noise(count: int) -> np.ndarray:
    cells = np.random.default_rng(1).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return np.kron(cells, np.ones((1, SIDE // 8, SIDE // 8), dtype=np.uint8))


def fitted(films: np.ndarray, steps: int, **options: Any) -> FilmModel:
    return fit_network({"made": films}, {"made": 1.0}, {"noise": noise(40)}, {"noise": 1.0}, steps, **options)


def test_a_short_fit_knows_position_and_polarity_and_what_is_neither():
    films = np.stack([scene(seed) for seed in range(12)])
    model = fitted(films, 40)
    model = FilmModel(model.layers, model.weights, model.bias, thresholds_of(model, [films]))
    unseen = scene(99) / np.float32(255)
    right = model.scores(thumbnail(unseen))
    assert max(right.inverted, right.rotated, right.mirrored, right.unlike) < 0
    assert model.scores(thumbnail(1 - unseen)).inverted > 0
    assert model.scores(thumbnail(np.rot90(unseen))).rotated > 0
    assert model.scores(thumbnail(unseen[:, ::-1])).mirrored > 0
    others = [model.scores(thumbnail(film / np.float32(255))).unlike for film in noise(60)[40:]]
    assert np.mean(np.array(others) > right.unlike) > 0.9
    assert model.thresholds["inverted"] >= 0


def test_the_same_seed_gives_the_same_weights():
    films = np.stack([scene(seed) for seed in range(3)])
    first, second, third = (fitted(films, 2, seed=seed).weights for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, third)


def test_a_fit_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.quality.fitting.SAVED_EVERY", 2)
    films, told = np.stack([scene(seed) for seed in range(3)]), []
    whole = fitted(films, 6).weights

    def stop(line: str) -> None:
        told.append(int(line.split()[1]))
        if told.count(5) == 1 and told[-1] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.quality.fitting.REPORTED_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        fitted(films, 6, checkpoint=tmp_path / "state.pt", progress=stop)
    resumed = fitted(films, 6, checkpoint=tmp_path / "state.pt", progress=stop)
    assert told == [1, 2, 3, 4, 5, 5, 6]
    np.testing.assert_array_equal(resumed.weights, whole)


def test_a_fit_starts_from_another_model():
    films = np.stack([scene(seed) for seed in range(3)])
    start = default_model()
    again = fitted(films, 1, start=start)
    np.testing.assert_allclose(again.weights, start.weights, atol=3e-3)  # one step
    for one, other in zip(again.layers, start.layers, strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=3e-3)
    assert np.abs(fitted(films, 1).weights - start.weights).max() > 0.02


def test_a_small_source_gives_a_limit_above_its_films():
    """Scores of a model without convolutions: ten equal films have no spread, two kinds of them have one."""
    own = thumbnail(scene(0) / np.float32(255))
    model = FilmModel((), own[None] * (20 / own.size), -5.0, {})
    films = np.stack([scene(seed) for seed in range(10)])
    same = np.repeat(films[:1], 10, axis=0)
    sides = [model.scores(thumbnail(film / np.float32(255))).mirrored for film in films]
    limit = thresholds_of(model, [films[:, :, ::-1], same])["mirrored"]
    assert limit == pytest.approx(-np.mean(sides) + 2.748 * np.std(sides), abs=0.01)
    assert limit > -min(sides)


def test_one_odd_film_sets_no_limit():
    own = thumbnail(scene(0) / np.float32(255))
    model = FilmModel((), own[None] * (20 / own.size), -5.0, {})
    films = np.stack([scene(seed) for seed in range(20)])
    usual = thresholds_of(model, [films])["unlike"]
    odd = np.concatenate([films, noise(1)])
    assert model.scores(thumbnail(odd[-1] / np.float32(255))).unlike > usual + 1
    assert thresholds_of(model, [odd])["unlike"] <= usual + 0.5


def body() -> np.ndarray:
    """A block of water with two holes of air, ``[X, Y, Z]``, 3 mm."""
    density = np.zeros((60, 40, 50), dtype=np.float32)
    density[5:-5, 5:-5] = 1
    density[10:25, 12:28, 10:40] = density[35:50, 12:28, 10:40] = 0.1
    return density


@pytest.mark.parametrize("seed", range(4))
def test_made_up_films_have_the_size_and_range_of_films(seed):
    rng = np.random.default_rng(seed)
    chest = scene(seed) / np.float32(255)
    made = [make(chest, rng) for make in (altered, tilted, cut)] + [frontal(body(), rng), drawn(rng)]
    made += [rendered(body(), rng, kind) for kind in KINDS_RENDERED] + [drawn(rng, subject) for subject in SUBJECTS]
    for film in made:
        assert film.shape == (SIDE, SIDE) and film.dtype == np.float32
        assert film.min() >= 0 and film.max() <= 1 and film.std() > 0


def test_a_rendered_chest_has_its_lungs_dark_and_side_by_side():
    film = frontal(body(), np.random.default_rng(3))
    middle = film[SIDE // 2]
    assert min(middle[30:50].mean(), middle[78:98].mean()) < middle[58:70].mean()


def test_verdicts_and_the_table_that_counts_them():
    assert verdict(["rotated", "inverted", "border"]) == "inverted and rotated"
    assert verdict(["mirrored", "not_frontal_chest"]) == "not_frontal_chest"
    assert verdict(["too_small"]) == "none"
    template = scene(0) / np.float32(255)
    own = thumbnail(template)
    limits = dict.fromkeys(("inverted", "rotated", "mirrored", "unlike"), 0.0)
    model = FilmModel((), own[None] * (20 / own.size), -12.0, limits)
    table = confusion({"here": [template]}, {"noise": [np.random.default_rng(0).random((SIDE, SIDE))]}, model)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    found = {row[0]: cells[0][row.index("1", 2)] for row in cells[2:]}
    assert found == {
        "here, untouched": "none",
        "here, inverted": "inverted",
        "here, turned 90": "rotated",
        "here, turned 180": "rotated",
        "here, turned 270": "rotated",
        "here, upside down (flipped)": "rotated",
        "here, inverted and turned 90": "inverted and rotated",
        "here, mirrored": "mirrored",
        "noise": "not_frontal_chest",
    }


def manifest(folder: Path, source: str, splits: Sequence[str]) -> Path:
    folder.mkdir()
    lines = ["image,patient_id,split,source"]
    for number, split in enumerate(splits):
        Image.fromarray(scene(number)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,p{number},{split},{source}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "manifest.csv"


def test_validation_films_give_thresholds_only_where_there_are_test_films(tmp_path):
    three = manifest(tmp_path / "three", "three", ["training", "validation", "test"])
    two = manifest(tmp_path / "two", "two", ["training", "validation"])
    assert list(calibrate.by_source([three, two], ["validation"])) == ["three", "two"]
    found = calibrate.by_source([three, two], ["validation"], "test")
    assert {name: [item["split"] for item in items] for name, items in found.items()} == {"three": ["validation"]}


def test_a_fit_is_repeated_from_its_cache(tmp_path, monkeypatch):
    """Films are read, and others made up, once; a second command ends as the first. An empty kind is left out."""
    others = dict.fromkeys([*calibrate.OTHER_SHARES, "rendered"], noise(4)) | {"page": noise(4)[:0]}
    monkeypatch.setattr(calibrate, "made_up", lambda chests, seed: others)
    path = manifest(tmp_path / "films", "nih_cxr14_subset", ["training"] * 10 + ["validation", "test"])
    first = calibrate.fit([path], 3, cache=tmp_path / "cache", without=["page"])
    with np.load(tmp_path / "cache" / "chests.npz") as films:
        assert {name: len(films[name]) for name in films} == {"fitted/nih_cxr14_subset": 8, "kept/nih_cxr14_subset": 3}
    monkeypatch.setattr(calibrate, "made_up", None)
    for film in path.parent.glob("*.png"):
        film.unlink()
    second = calibrate.fit([path], 3, cache=tmp_path / "cache", without=["page"])
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.thresholds == second.thresholds and set(first.thresholds) == {
        "inverted",
        "rotated",
        "mirrored",
        "unlike",
    }
