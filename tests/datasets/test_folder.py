"""Any folder."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.manifest import read_records
from cxw_monai.datasets import prepare_dataset


def test_images_below_a_folder(put, prepare):
    for name in ("a/1.png", "a/2.jpg", "b/3.dcm", "b/4.png", "masks/1.png"):
        put(name)
    films = prepare("folder", test=0.25, validation=0.34)
    assert set(films) == {"1.png", "2.jpg", "3.dcm", "4.png"}
    assert sorted(film.split for film in films.values()) == ["test", "training", "training", "validation"]


def test_a_table_with_patients_labels_and_masks(put, root, prepare, tmp_path):
    table = "image,patient_id,sex,Pneumonia,age,mask_lung\n"
    for n in range(6):
        put(f"images/{n}.png")
        table += f"images/{n}.png,p{n // 2},F,{['1', '0', ''][n % 3]},{50 + n},masks/{n}.png\n"
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(root / f"masks/{n}.png")
    put("films.csv", table)
    films = prepare("folder", table="films.csv", labels="Pneumonia", test=0.3, validation=0.5)
    assert [films[f"{n}.png"].labels for n in range(3)] == [{"Pneumonia": 1}, {"Pneumonia": 0}, {}]
    assert films["5.png"].age == 55 and films["5.png"].masks == {"lung": str(root / "masks/5.png")}
    assert all(films[f"{n}.png"].split == films[f"{n + 1}.png"].split for n in (0, 2, 4))
    assert {film.split for film in films.values()} == {"training", "validation", "test"}


def test_splits_of_the_table_are_kept(put, prepare):
    for n in range(3):
        put(f"{n}.png")
    put("films.csv", "image,split\n0.png,test\n1.png,training\n2.png,validation\n")
    films = prepare("folder", table="films.csv")
    assert [films[f"{n}.png"].split for n in range(3)] == ["test", "training", "validation"]


def test_errors_name_the_table(put, root, tmp_path):
    put("0.png")
    put("films.csv", "image,patient_id,split\n0.png,p,training\n0.png,p,test\n")
    with pytest.raises(
        ValueError, match=r"record 2 \(.*0\.png\): the image is in record 1 already.*patient is in test"
    ):
        prepare_dataset("folder", root, tmp_path / "out", table="films.csv")
    put("films.csv", "image,finding\n0.png,yes\n")
    with pytest.raises(ValueError, match=r"films\.csv.*finding is 'yes'; a label is a number"):
        prepare_dataset("folder", root, tmp_path / "out", table="films.csv", labels="finding")
    with pytest.raises(ValueError, match="labels finding without a table"):
        prepare_dataset("folder", root, tmp_path / "out", labels="finding")


def test_a_film_whose_name_is_not_utf8_is_left_out(root, put, tmp_path):
    for n in range(5):
        put(f"{n}.png")
    try:
        shutil.copy(root / "0.png", os.fsencode(root) + b"/\xff.png")
    except OSError:
        pytest.skip("this disk takes only names in UTF-8")
    summary = prepare_dataset("folder", root, tmp_path / "out")
    assert summary["left_out"] == {"films": 1, "masks": 0}
    assert len(list(read_records(tmp_path / "out/manifest.csv"))) == 5
    assert "\\udcff.png,its name is not UTF-8,rename it" in (tmp_path / "out/left_out.csv").read_text()
