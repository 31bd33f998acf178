"""Tables and page of a segmentation's evaluation."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.sim_to_real.experiment import film_scores
from cxw_monai.tasks.segmentation.report import LABEL_COLOUR, PRED_COLOUR, draw_contours
from cxw_monai.tasks.segmentation.scores import SegmentationScores

IMAGE = np.tile(np.arange(0, 128, 2, dtype=np.uint8), (64, 1))


def square(left, size=16, top=20):
    mask = np.zeros((64, 64), bool)
    mask[top : top + size, left : left + size] = True
    return mask


def scores_of(*films, structures=("lung_left", "mediastinum"), **how):
    """Scores of `(name, shift of the lung's prediction)`; the mediastinum is unknown on odd films."""
    scores = SegmentationScores(structures, **how)
    for number, (name, shift) in enumerate(films):
        label = np.stack([square(10), square(40)])
        pred = np.stack([square(10 + shift), square(40)])
        known = np.array([True, number % 2 == 0])
        scores.add(name, f"patient {number}", pred, label, known, (2.0, 0.5) if number == 0 else None, IMAGE)
    return scores


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores") / "test"
    scores_of(("good", 0), ("<b>bad", 8), ("so-so", 4), ("worst", 16)).write(folder)
    return folder


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_a_film(written):
    good, bad, middle, worst = table(written / "films.csv")
    assert [row["film"] for row in (good, bad, middle, worst)] == ["good", "<b>bad", "so-so", "worst"]
    assert [float(row["dice_lung_left"]) for row in (good, bad, middle, worst)] == [1, 0.5, 0.75, 0]
    assert float(bad["iou_lung_left"]) == pytest.approx(1 / 3, abs=1e-5)
    assert (good["hd95_mm_lung_left"], good["hd95_px_lung_left"]) == ("0.00000", "")
    assert (bad["hd95_mm_lung_left"], float(bad["hd95_px_lung_left"])) == ("", 8)
    assert bad["dice_mediastinum"] == bad["label_px_mediastinum"] == "" and good["dice_mediastinum"] == "1.00000"


def test_the_experiments_find_their_columns(written):
    assert film_scores(written / "films.csv") == {"lung_left": 0.5625, "mediastinum": 1, "lungs": 0.5625}


def test_summaries(written):
    lung, mediastinum, total = table(written / "summary.csv")
    assert [row["structure"] for row in (lung, mediastinum, total)] == ["lung_left", "mediastinum", "all"]
    assert (lung["films"], mediastinum["films"], mediastinum["unknown"], total["patients"]) == ("4", "2", "2", "4")
    assert float(lung["dice"]) == 0.5625 and float(lung["dice_low"]) < 0.5625 < float(lung["dice_high"])
    assert (lung["hd95_mm_films"], lung["hd95_px_films"], lung["hd95_mm_low"]) == ("1", "3", "")
    assert lung["false_positive_rate"] == ""
    found = json.loads((written / "summary.json").read_text())
    assert (found["films"], found["dice_lung_left"], found["dice_mediastinum"]) == (4, 0.5625, 1)
    assert found["dice"] == found["all/dice"] == (0.5625 + 1) / 2
    assert found["lung_left/hd95_px"] == pytest.approx((8 + 4 + 16) / 3)
    assert all(isinstance(value, (int, float)) for value in found.values())
    again = scores_of(("good", 0), ("<b>bad", 8), ("so-so", 4), ("worst", 16))
    assert again.summary() == {name: found[name] for name in ("dice", "dice_lung_left", "dice_mediastinum")}


def test_the_page_needs_nothing_and_shows_the_worst_first(written):
    page = (written / "report.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["worst: 0.000", "&lt;b&gt;bad: 0.500", "so-so: 0.875", "good: 1.000"]
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(sources) == 5 and all(source.startswith("data:image/") for source in sources)
    assert "http" not in page and "url(" not in page and "@import" not in page
    assert [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).format for source in sources] == [
        "PNG", "JPEG", "JPEG", "JPEG", "JPEG"
    ]  # fmt: skip


def test_no_patient_is_named_anywhere(written):
    assert {path.name for path in written.iterdir()} == {"films.csv", "summary.csv", "summary.json", "report.html"}
    assert not any(re.search(r"patient \d", path.read_text()) for path in written.iterdir())


def test_only_so_many_films_are_shown(tmp_path):
    films = [(f"film {n}", shift) for n, shift in enumerate((3, 9, 0, 9, 5, 1))]
    scores = scores_of(*films, structures=("lung_left", "heart"), overlays=2)
    assert [case.name for case in scores.worst] == ["film 1", "film 3"]
    scores_of(*films, overlays=0).write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "figcaption>" not in page and page.count("<img") == 1


def coloured(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def test_contours_lie_on_the_masks_own_pixels():
    """At eight times its size: an 128 px square's outermost 4 px for the label, 2 px for the prediction on top."""
    scores = scores_of(("even", 0), ("odd", 20))  # the second film's mediastinum is unknown
    odd, even = scores.worst
    assert (odd.name, even.name) == ("odd", "even")
    picture = draw_contours(odd)
    assert picture.shape == (512, 512, 3)
    label, pred = coloured(picture, LABEL_COLOUR), coloured(picture, PRED_COLOUR)
    assert label.sum() == 128**2 - 120**2 and pred.sum() == 128**2 - 124**2
    assert label[160, 80] and not label[159, 80] and label[163, 100] and not label[164, 100]  # rows 20.., columns 10..
    assert pred[160, 240] and not pred[160, 239] and pred[161, 300] and not pred[162, 300]  # columns 30..
    grey = picture[:, :, 0][~(label | pred)]
    assert (np.ptp(picture.astype(int), axis=-1)[~(label | pred)] == 0).all() and grey.min() < 5 < 120 < grey.max()


def test_coinciding_contours_are_both_seen_in_true_proportions():
    even = scores_of(("even", 0)).worst[0]  # rows of 2 mm, columns of 0.5 mm
    picture = draw_contours(even)
    assert picture.shape == (512, 128, 3)
    for colour in (LABEL_COLOUR, PRED_COLOUR):
        rows, columns = (np.flatnonzero(coloured(picture, colour).any(axis=axis)) for axis in (1, 0))
        assert abs(rows[0] - 160) <= 2 and abs(columns[0] - 20) <= 2
        assert abs(rows[-1] - 287) <= 2 and abs(columns[-1] - 111) <= 2  # the lung's top left to the other's bottom


def test_sixteen_bits_are_shown_like_eight():
    eight, sixteen = (SegmentationScores(["a"]) for _ in range(2))
    mask = np.zeros((1, 64, 64), bool)
    for scores, image in ((eight, IMAGE), (sixteen, IMAGE.astype(np.uint16) * 257)):
        scores.add("film", None, mask, mask, np.array([True]), None, image)
    np.testing.assert_array_equal(draw_contours(eight.worst[0]), draw_contours(sixteen.worst[0]))


def test_films_without_a_picture_or_a_known_structure_are_not_shown(tmp_path):
    scores = SegmentationScores(["a"])
    mask = square(3)[None]
    scores.add("no picture", None, mask, mask, np.array([True]))
    scores.add("nothing known", None, mask, mask, np.array([False]), None, IMAGE)
    scores.write(tmp_path)
    assert scores.worst == [] and "figcaption>" not in (tmp_path / "report.html").read_text()
    assert [row["dice_a"] for row in table(tmp_path / "films.csv")] == ["1.00000", ""]


def test_what_cannot_be_scored_is_told(tmp_path):
    with pytest.raises(ValueError, match="no structure may be called 'all'"):
        SegmentationScores(["all"])
    with pytest.raises(ValueError, match="overlays must be 0 or more"):
        SegmentationScores(["a"], overlays=-1)
    with pytest.raises(ValueError, match="no film was scored"):
        SegmentationScores(["a"]).write(tmp_path)
    scores = SegmentationScores(["a"])
    with pytest.raises(ValueError, match="film: 2 masks for the structures a"):
        scores.add("film", None, *[np.zeros((2, 4, 4), bool)] * 2, np.array([True, True]))
    scores.add("film", None, *[np.zeros((1, 4, 4), bool)] * 2, np.array([False]))
    with pytest.raises(ValueError, match="None of the 1 films has a known mask of a"):
        scores.write(tmp_path)
