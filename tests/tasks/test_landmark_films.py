"""Landmarks of a manifest: which films, which splits, where on the cached film; and the tables of their errors."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from cxw_monai.data.cache import build_cache
from cxw_monai.tasks.landmarks.dataset import LandmarkDataset, LandmarkFilms
from cxw_monai.tasks.landmarks.evaluation import FilmScoring
from cxw_monai.tasks.landmarks.items import landmark_items, landmark_names, landmark_splits, landmark_subset
from cxw_monai.tasks.landmarks.scores import LandmarkScores
from cxw_monai.transforms.points import WholePointsd

POINTS = ["tip", "base"]


def write_manifest(folder, rows, name="manifest.csv"):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


@pytest.fixture
def manifest(tmp_path):
    """Ten films of 80 x 40 px; the base is unknown on every second one, and a column is empty throughout."""
    rows = []
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        base = "" if number % 2 else "[19.5, 60]"
        row = {"image": f"{number}.png", "patient_id": f"p{number}", "landmark_tip": f"[{number}, 10]"}
        rows.append({**row, "landmark_base": base, "landmark_nothing": "", "pixel_spacing_mm": "0.2"})
    return write_manifest(tmp_path, rows)


def films_of(manifest, points=POINTS, size=20):
    return LandmarkFilms(build_cache(landmark_items(manifest, points), manifest.parent / "cache", size), points)


def test_landmarks_that_no_film_has_are_not_learnt(manifest):
    assert landmark_names(manifest) == POINTS
    items = landmark_items(manifest, POINTS)
    assert [item["points"] for item in items[:2]] == [[[0, 10], [19.5, 60]], [[1, 10], None]]
    assert not any(name.startswith("landmark_") for name in items[0])
    assert len(landmark_items(manifest, ["base"])) == 5  # of the films that have it


def test_a_landmark_may_have_another_column(manifest):
    items = landmark_items(manifest, ["end"], {"end": "base"})
    assert items[0]["points"] == [[19.5, 60]]
    with pytest.raises(
        ValueError, match="no column landmark_heel for the landmark 'heel'; its landmark columns are land"
    ):
        landmark_items(manifest, ["tip", "heel"])
    assert landmark_items(manifest, ["tip", "heel"], all_columns=False)[0]["points"] == [[0, 10], None]
    with pytest.raises(ValueError, match="none of its 10 films has a landmark of nothing"):
        landmark_items(manifest, ["nothing"])


def test_splits_keep_patients_apart_and_a_subset_is_one_of_them(manifest):
    how = {"points": POINTS, "val_fraction": 0.2, "test_fraction": 0.3, "seed": 1}
    parts = landmark_splits(manifest, **how)
    assert [len(part) for part in parts] == [6, 1, 3]
    assert landmark_subset("test", manifest, **how) == parts.test
    assert len(landmark_subset("all", manifest, **how)) == 10


def test_a_stored_point_on_the_cached_film_and_back(manifest):
    """Films of 80 x 40 px, cached with a shorter side of 20: half as large. The first pixel's centre is 0, 0 in the
    manifest, and 0.5, 0.5 in continuous px."""
    films = films_of(manifest)
    assert films.image(0).shape == (1, 40, 20) and films.stored_shape(0) == (80, 40)
    assert films.stored_points(0).tolist() == [[10.5, 0.5], [60.5, 20.0]]
    np.testing.assert_allclose(films.label(0), [[5.25, 0.25], [30.25, 10.0]])
    np.testing.assert_allclose(films.shares(0)[1], [0.5, 60.5 / 80])
    np.testing.assert_allclose(films.to_stored(0, films.shares(0)), films.stored_points(0))
    assert films.known(1).tolist() == [True, False] and np.isnan(films.stored_points(1)[1]).all()
    assert films.label(1)[1].tolist() == [0, 0]
    assert films.spacing_mm(0) == (0.2, 0.2)  # of the stored film
    sample = LandmarkDataset(films, WholePointsd((80, 40)))[0]
    torch.testing.assert_close(sample["points"], torch.tensor([[10.5, 0.5], [60.5, 20.0]]))
    assert set(sample) == {"image", "points", "known", "index"}


def test_a_films_own_spacing_is_that_of_its_stored_axes(tmp_path):
    """A NIfTI stores columns first: its array is turned, and so are the axes of its spacing."""
    import nibabel

    volume = np.random.default_rng(0).random((40, 80, 1)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.25, 1, 1])), tmp_path / "film.nii.gz")
    manifest = write_manifest(tmp_path, [{"image": "film.nii.gz", "landmark_tip": "[3, 4]"}])
    films = films_of(manifest, ["tip"], 20)
    stored, cached = films.stored_shape(0), films.image(0).shape[1:]
    assert stored == (40, 80) and cached == (40, 20)
    assert films.spacing_mm(0) == pytest.approx((0.5, 0.25))


def test_a_landmark_outside_of_its_film_is_refused(manifest):
    rows = list(csv.DictReader(manifest.open()))
    rows[3]["landmark_tip"] = "[12, 95]"
    write_manifest(manifest.parent, rows)
    with pytest.raises(ValueError, match=r"3.png: landmark_tip \[12, 95\] lies outside of the film's 40 x 80 px"):
        films_of(manifest)


def test_films_are_scored_on_their_stored_pixels(manifest, tmp_path):
    """The network's answer is 4 px to the right of every tip on films of 40 px, and right for every base."""
    films = films_of(manifest)
    scoring = FilmScoring(films)
    for index in range(len(films)):
        found = np.nan_to_num(films.shares(index))
        found[0, 0] += 4 / 40
        answer = torch.from_numpy(np.column_stack([found, [0.9, 0.4]]))[None]
        scoring.add({"index": [index], "found": answer})
    summary = scoring.summary()
    assert summary["mean_radial_error_px"] == pytest.approx(40 / 15)  # ten tips, five bases
    assert summary["mean_radial_error_mm"] == pytest.approx(0.2 * 40 / 15)
    assert summary["success_2mm"] == 1 and summary["score"] == pytest.approx(-100 * 40 / 15 / math.hypot(80, 40))
    scoring.scores.write(tmp_path / "test")
    table = list(csv.DictReader((tmp_path / "test" / "films.csv").open()))
    assert (table[1]["film"], table[1]["error_px_tip"], table[1]["error_px_base"]) == ("1", "4.00000", "")
    points = {row["point"]: row for row in csv.DictReader((tmp_path / "test" / "points.csv").open())}
    assert (points["base"]["known"], points["tip"]["mean_mm"], points["tip"]["success_2mm"]) == (
        "5",
        "0.80000",
        "1.00000",
    )
    whole = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert whole["films"] == 10 and whole["tip/mean_px"] == pytest.approx(4)
    page = (tmp_path / "test" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 10 and "0.80 mm" in page
    scoring.start()
    with pytest.raises(ValueError, match="no film was scored"):
        scoring.summary()


def test_the_page_shows_the_worst_films_first():
    scores = LandmarkScores(["tip"], pictures=2)
    for name, off in (("good", 1.0), ("bad", 9.0), ("fair", 4.0), ("unknown", math.nan)):
        scores.add(name, None, np.array([[0.0, off]]), np.zeros((1, 2)), np.ones(1), (30, 40))
        scores.show(np.zeros((30, 40), np.uint8), np.zeros((1, 2)), np.zeros((1, 2)))
    assert [case.name for case in scores.worst] == ["bad", "fair"] and scores.worst[0].unit == "px"
    assert scores.worst[0].error == pytest.approx(9 / 50)
    with pytest.raises(ValueError, match="no landmark may be called 'all'"):
        LandmarkScores(["all"])
