"""A folder with one of each defect: what is found, and how it is reported."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxw_monai.quality import COLUMNS, FilmRecord, QualitySettings, check_radiographs, write_csv, write_page

SMALL = QualitySettings(min_side=64)


def film(seed: int, rows: int = 120, columns: int = 100) -> np.ndarray:
    blobs = gaussian_filter(np.random.default_rng(seed).standard_normal((rows, columns)), sigma=3)
    return np.rint(20 + 220 * (blobs - blobs.min()) / np.ptp(blobs)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "films"
    (root / "sub").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(film(number)).save(root / f"film{number}.png")
    Image.fromarray(film(1)).save(root / "sub" / "again.tif")  # another container
    Image.fromarray(film(2)).resize((200, 240)).save(root / "sub" / "larger.jpg", quality=80)
    Image.fromarray(np.pad(film(4), ((0, 0), (20, 0)))).save(root / "bordered.png")
    Image.fromarray(film(5, 40, 50)).save(root / "tiny.png")
    Image.fromarray(100 + film(6) // 16).save(root / "flat.png")
    Image.fromarray(np.full((80, 80), 7, np.uint8)).save(root / "constant.png")
    (root / "broken.png").write_bytes((root / "film0.png").read_bytes()[:200])
    return root


def by_name(records: list[FilmRecord]) -> dict[str, FilmRecord]:
    return {Path(record.image).as_posix(): record for record in records}


def test_each_defect_is_found_where_it_is(folder):
    records = check_radiographs(folder, SMALL, workers=2)
    found = by_name(records)
    assert list(found) == sorted(found) and len(found) == 11
    raised = lambda check: {name for name, record in found.items() if check in record.flags}  # noqa: E731
    assert raised("unreadable") == {"broken.png", "constant.png"}
    assert raised("duplicate") == {"film1.png", "sub/again.tif"}
    assert raised("near_duplicate") == {"film2.png", "sub/larger.jpg"}
    assert raised("border") == {"bordered.png"}
    assert raised("too_small") == {"tiny.png"}
    assert raised("low_contrast") == {"flat.png"}
    assert found["constant.png"].reason.startswith("constant image")
    bordered = found["bordered.png"]
    assert (bordered.top, bordered.left, bordered.height, bordered.width) == (0, 20, 120, 100)
    assert (bordered.rows, bordered.columns) == (120, 120)
    assert found["film1.png"].duplicate_group == found["sub/again.tif"].duplicate_group == 1
    assert found["film2.png"].near_duplicate_group == found["sub/larger.jpg"].near_duplicate_group == 1
    assert found["film0.png"].duplicate_group is found["film0.png"].near_duplicate_group is None


def test_blobs_are_no_chest(folder):
    found = by_name(check_radiographs(folder, SMALL))
    assert all("not_frontal_chest" in found[f"film{number}.png"].flags for number in range(4))


def test_films_of_another_anatomy_are_not_asked_for_a_chest(folder):
    """Faults that every film can have are found all the same."""
    of_chest, of_hand = (check_radiographs(folder, replace(SMALL, anatomy=name)) for name in ("chest", "hand"))
    only_of_chests = {"not_frontal_chest", "inverted", "rotated", "mirrored"}
    for chest, hand in zip(of_chest, of_hand, strict=True):
        assert set(hand.flags) == set(chest.flags) - only_of_chests
    assert any(set(record.flags) & only_of_chests for record in of_chest)


def test_items_and_one_process_give_the_same(folder):
    items = [{"image": str(path)} for path in sorted(folder.glob("film*.png"))]
    assert [record.image for record in check_radiographs(items, SMALL)] == [f"film{number}.png" for number in range(4)]


def test_near_duplicates_can_be_turned_off(folder):
    records = check_radiographs(folder, QualitySettings(min_side=64, near_distance=-1))
    assert not any("near_duplicate" in record.flags for record in records)


def test_csv_holds_every_film(folder, tmp_path):
    records = check_radiographs(folder, SMALL)
    write_csv(tmp_path / "out.csv", records)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 11 and tuple(rows["film0.png"]) == COLUMNS
    assert rows["bordered.png"]["left"] == "20" and "border" in rows["bordered.png"]["flags"].split("|")
    assert rows["broken.png"]["rows"] == "" and rows["broken.png"]["reason"]


def test_page_is_self_contained_and_escapes_names(folder, tmp_path):
    os.rename(folder / "tiny.png", folder / "<script>alert(1)<&.png")
    records = check_radiographs(folder, SMALL)
    write_page(tmp_path / "page.html", records, folder)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)&lt;&amp;.png" in page
    assert not re.search(r"https?://|src=\"(?!data:)|href=", page)
    assert "11 files, 11 with a finding" in page
    assert page.count("data:image/jpeg;base64,") == 9  # all but the two unreadable ones


def test_page_limits_each_finding_and_keeps_rare_ones(tmp_path):
    many = [FilmRecord(f"a{number}.png", ["inverted"]) for number in range(500)]
    records = [*many, FilmRecord("z.png", ["unreadable"], "gone; look"), FilmRecord("fine.png")]
    write_page(tmp_path / "page.html", records, tmp_path, per_check=20)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<tr data-flags") == 21 and "z.png" in page and "fine.png" not in page
    assert "inverted (500)" in page and "502 files, 501 with a finding" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items_or_folder": "nowhere"}, "nowhere: not a folder"),
        ({"items_or_folder": []}, "no radiographs to check"),
        ({"items_or_folder": ".", "workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_radiographs(**arguments)


@pytest.mark.parametrize("name", ["min_side", "min_contrast", "min_border", "near_distance", "file_seconds"])
def test_settings_refuse(name):
    with pytest.raises(ValueError, match=f"{name} must lie in"):
        QualitySettings(**{name: -2})
