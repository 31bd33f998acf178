"""Training films of several sources, and scores on manual masks, on made-up films."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.segmentation.__main__ import main
from benchmarks.segmentation.compare import Comparison, chosen_films
from benchmarks.segmentation.films import SOURCES, STRUCTURES, write_films
from benchmarks.segmentation.pictures import draw_films, worst_first
from benchmarks.segmentation.score import OUTLINES, predicted, read_scores, score_films, summary
from cxw_monai.weights.segmenter import load_segmenter, new_segmenter, save_segmenter, segmenter_settings


def _box(rows, columns, shape=(40, 60)):
    mask = np.zeros(shape, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def _save(path: Path, mask) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(mask) * 255).astype(np.uint8)).save(path)
    return str(path.relative_to(path.parents[1]))


def _manifest(folder: Path, rows: list[dict[str, object]]) -> Path:
    columns = sorted({name for row in rows for name in row})
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def _film(folder: Path, name: str) -> str:
    grey = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(folder / "images" / f"{name}.png")
    return f"images/{name}.png"


RIGHT, LEFT, HEART = _box((5, 30), (5, 25)), _box((5, 30), (38, 55)), _box((20, 35), (26, 44))


def _wingspan(folder: Path) -> Path:
    rows = []
    for name, masks in {"good": (HEART, LEFT), "exchanged": (LEFT, HEART)}.items():
        files = {"heart": masks[0], "left_lung": masks[1], "right_lung": RIGHT}
        row = {"image": _film(folder, name), "id": name, "patient_id": name, "split": "training"}
        rows.append(row | {f"mask_{s}": _save(folder / f"masks_{s}" / f"{name}.png", m) for s, m in files.items()})
    return _manifest(folder, rows)


def test_films_of_two_sources_stand_in_one_manifest_each_with_what_it_outlines(tmp_path, caplog):
    kermany = tmp_path / "kermany"
    rows = [
        {"image": _film(kermany, split), "id": split, "patient_id": split, "split": split}
        | {"mask_lungs_v7": _save(kermany / "masks" / f"{split}.png", RIGHT | LEFT)}
        for split in ("training", "test")
    ]
    sources = {"wingspan": _wingspan(tmp_path / "wingspan"), "kermany": _manifest(kermany, rows)}
    with write_films(sources, tmp_path / "films").open(newline="") as stream:
        found = {row["id"]: row for row in csv.DictReader(stream)}
    assert sorted(found) == ["kermany_training", "wingspan_good"]  # no test film, none with exchanged masks
    assert "left out, its heart lies above a lung" in caplog.text
    known = {name: [s for s in STRUCTURES if row[f"mask_{s}"]] for name, row in found.items()}
    assert known["kermany_training"] == ["lung_left", "lung_right"]
    assert known["wingspan_good"] == ["lung_field_left", "lung_field_right", "heart"]
    left = np.asarray(Image.open(found["kermany_training"]["mask_lung_left"])) > 0
    assert np.array_equal(left, LEFT)


def test_films_with_masks_by_name_know_those_that_are_given(tmp_path):
    item = {f"mask_{name}": f"{name}.png" for name in STRUCTURES} | {"mask_ribs": "ribs.png", "mask_mediastinum": ""}
    rendered = SOURCES["rendered"](item, tmp_path)
    assert sorted(rendered) == ["clavicle_left", "clavicle_right", "lung_left", "lung_right"]


def test_agreed_lungs_end_with_their_visible_field(tmp_path):
    """A lung mask that runs through the diaphragm is cut at its field's lowest row, and holds the whole field."""
    field, lung = _box((5, 20), (38, 55)), _box((8, 30), (30, 55))
    files = {"lung_field_left": field, "lung_left": lung, "heart": HEART, "clavicle_left": LEFT}
    for name, mask in files.items():
        _save(tmp_path / "m" / f"{name}.png", mask)
    found = SOURCES["agreed"]({f"mask_{name}": f"m/{name}.png" for name in files}, tmp_path)
    assert sorted(found) == ["heart", "lung_field_left", "lung_left"]
    assert np.array_equal(found["lung_left"], field | _box((8, 20), (30, 55)))


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No source 'other'"):
        write_films({"other": tmp_path}, tmp_path)


def test_a_lung_field_of_an_older_model_is_its_lung_less_heart_and_mediastinum():
    masks = {"lung_left": LEFT, "heart": HEART}
    assert np.array_equal(predicted(masks, "lung_field_left"), LEFT & ~HEART)
    assert np.array_equal(predicted({**masks, "lung_field_left": RIGHT}, "lung_field_left"), RIGHT)
    assert np.array_equal(predicted(masks, "heart_mediastinum"), HEART)
    assert predicted(masks, "lung_field_right") is None
    assert predicted({"clavicle_left": LEFT}, "lungs") is None


class _Known:
    """Stands for a model that draws the given masks."""

    def __init__(self, masks):
        self.structures = tuple(masks)
        self.predictor = self
        self._masks = np.stack(list(masks.values()))

    def masks(self, film):
        return self._masks


def test_scores_are_those_computed_by_hand(tmp_path):
    manifest = _wingspan(tmp_path / "wingspan")
    drawn = {"lung_field_left": LEFT, "lung_field_right": RIGHT, "heart": _box((20, 35), (26, 49))}
    rows = score_films(_Known(drawn), "wingspan", manifest, tmp_path / "scores.csv")
    good = next(row for row in rows if row["id"] == "good")
    assert good["dice_lung_field_left"] == 1
    assert good["dice_heart"] == pytest.approx(2 * 15 * 18 / (15 * 18 + 15 * 23))
    assert good["hd95_heart"] == pytest.approx(5 * 512 / 60)  # the left edge is right, the right one 5 px off
    assert good["ctr_label"] == pytest.approx(18 / 50)
    assert good["ctr_error"] == pytest.approx(23 / 50 - 18 / 50)
    assert good["gross"] == 0
    assert next(row for row in rows if row["id"] == "exchanged")["gross"] == 1
    again = read_scores(tmp_path / "scores.csv")
    assert again[1]["id"] == rows[1]["id"]
    assert again[1]["dice_heart"] == pytest.approx(rows[1]["dice_heart"], abs=1e-5)


def test_the_summary_has_bias_and_size_of_the_errors_and_the_worst_film():
    rows = [
        {"id": str(n), "patient_id": str(n), "dice_heart": dice, "ctr": 0.5, "ctr_label": 0.5, "ctr_error": error}
        for n, (dice, error) in enumerate([(0.9, 0.02), (0.7, -0.04), (0.8, 0.0)])
    ]
    found = summary(rows)
    assert found["dice_heart"][0] == pytest.approx(0.8)
    assert found["dice_heart"][3] == 0.7
    assert found["ctr_error"][0] == pytest.approx(-0.02 / 3)
    assert found["ctr_off"][0] == pytest.approx(0.02)
    assert found["dice_heart"][1] < 0.8 < found["dice_heart"][2]


def test_no_film_with_a_mask_is_refused(tmp_path):
    manifest = _manifest(tmp_path, [{"image": _film(tmp_path, "a"), "id": "a"}])
    with pytest.raises(ValueError, match="no film of it has a mask"):
        score_films(_Known({"lung_field_left": LEFT}), "wingspan", manifest, tmp_path / "s.csv")


def test_the_worst_films_come_first_on_a_sheet(tmp_path):
    rows = [{"id": "good", "dice_heart": 0.9, "dice_lungs": 0.5}, {"id": "exchanged", "dice_heart": 0.4}]
    assert worst_first(rows) == ["exchanged", "good"]
    manifest = _wingspan(tmp_path / "wingspan")
    model = _Known({"lung_field_left": LEFT, "lung_field_right": RIGHT, "heart": HEART})
    sheet = tmp_path / "sheet.png"
    draw_films(model, manifest, ["exchanged", "good"], OUTLINES["wingspan"], model.structures, sheet)
    picture = np.asarray(Image.open(sheet))
    assert picture.shape == (240, 1920, 3)
    assert (picture[:160, 240:480] == 255).all(axis=2).any()  # a manual outline, on the second film
    assert not picture[:, 480:].any()


def test_a_share_of_the_patients_holds_those_of_a_smaller_share():
    items = [{"patient_id": str(n // 2), "image": str(n)} for n in range(40)]
    shares = [{item["image"] for item in chosen_films(items, share, seed=1)} for share in (0.01, 0.2, 0.5, 1)]
    assert [len(films) for films in shares] == [2, 8, 20, 40]  # each patient with both films
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert {item["image"] for item in chosen_films(items, 0.2, seed=2)} != shares[1]


def _training_films(tmp_path: Path) -> tuple[Path, Path]:
    manifest = _wingspan(tmp_path / "wingspan")
    return write_films({"wingspan": manifest}, tmp_path / "films"), manifest


def test_a_comparison_has_a_row_a_run_and_does_none_twice(tmp_path, monkeypatch):
    films, manifest = _training_films(tmp_path)
    rows = list(csv.DictReader(manifest.open()))
    rows[1]["split"] = "validation"
    _manifest(manifest.parent, rows)
    comparison = Comparison(films, "wingspan", {}, {"wingspan": manifest}, tmp_path / "out", steps=1, image_size=32)
    for arm in ("unet", "random"):
        comparison.run(arm, 1.0, 0)
    table = list(csv.DictReader(comparison.table.open()))
    assert [row["arm"] for row in table] == ["unet", "random"]
    assert all(0 <= float(row["wingspan_dice_heart"]) < 0.9 for row in table)
    monkeypatch.setattr("benchmarks.segmentation.compare.trained", None)  # would fail if it were called
    comparison.run("unet", 1.0, 0)
    with pytest.raises(ValueError, match="No arm 'other'"):
        comparison.run("other", 1.0, 0)


def test_shipped_weights_are_half_as_large_and_draw_the_same(tmp_path):
    settings = segmenter_settings(["heart"], 32, "tiny", 16, "hybrid", 4)
    network = new_segmenter(settings).eval()
    save_segmenter(network, settings, tmp_path / "run.pt")
    assert main(["ship", "--model", str(tmp_path / "run.pt"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "model.pt").stat().st_size < 0.55 * (tmp_path / "run.pt").stat().st_size
    shipped, image = load_segmenter(tmp_path / "model.pt"), torch.rand(1, 1, 32, 32)
    assert next(shipped.parameters()).dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(shipped(image), network(image), rtol=0, atol=0.02)
