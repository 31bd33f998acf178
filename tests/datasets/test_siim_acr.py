"""SIIM-ACR from its published layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cxw_monai.datasets import prepare_dataset

HEADER = "ImageId, EncodedPixels\n"  # with the blank, as published


@pytest.fixture
def tree(put):
    """Films 1.1 to 1.6, film 1.1 with two rows; 1.9 has none. Patients p1 (two films) to p5. 4 rows x 3 columns."""
    rows = "1.1, 1 2 4 1\n1.1, 10 1\n" + "".join(f"1.{n}, -1\n" for n in range(2, 7))
    put("train-rle.csv", HEADER + rows)
    for n in (1, 2, 3, 4, 5, 6, 9):
        patient = f"p{max(n - 1, 1)}"
        put(
            f"dicom-images-train/s{n}/r{n}/1.{n}.dcm", size=(3, 4), PatientID=patient, PatientSex="M", ViewPosition="PA"
        )


def test_rows_of_a_film_are_united_down_the_columns(tree, prepare, tmp_path):
    films = prepare("siim_acr", test=0.2, validation=0.25)
    assert set(films) == {f"1.{n}.dcm" for n in range(1, 7)}
    first = films["1.1.dcm"]
    # Runs "1 2 4 1": skip 1, set 2 (pixels 1, 2), skip 4, set 1 (pixel 7). "10 1": pixel 10. Column by column, 4 rows:
    expected = [
        [0, 0, 0],
        [1, 0, 0],
        [1, 0, 1],
        [0, 1, 0],
    ]
    mask = np.asarray(Image.open(tmp_path / "out" / first.masks["pneumothorax"]))
    assert np.array_equal(mask, 255 * np.array(expected, np.uint8))
    assert first.labels == {"Pneumothorax": 1} and (first.sex, first.view, first.width, first.height) == (
        "M",
        "PA",
        3,
        4,
    )
    second = films["1.2.dcm"]
    assert second.labels == {"Pneumothorax": 0} and second.patient_id == first.patient_id == "p1"
    assert second.split == first.split
    assert not np.asarray(Image.open(tmp_path / "out" / second.masks["pneumothorax"])).any()
    splits = [film.split for film in films.values()]
    assert splits.count("test") in (1, 2) and splits.count("validation") in (1, 2)


def test_labelled_films_of_the_first_stage_are_the_test_split(tree, put, prepare):
    rows = "".join(f"1.{n},-1\n" for n in range(2, 7)) + "1.1,0 1\n1.7,5 1\n"
    put("stage_2_train.csv", "ImageId,EncodedPixels\n" + rows)
    put("dicom-images-test/s7/r7/1.7.dcm", size=(3, 4), PatientID="p7")
    films = prepare("siim_acr", validation=0.2)
    assert {name for name, film in films.items() if film.split == "test"} == {"1.7.dcm"}
    assert "validation" in {film.split for film in films.values()}


def test_runs_outside_the_film_are_refused(tree, put, root, tmp_path):
    put("train-rle.csv", HEADER + "1.1, 11 2\n1.3, -1\n")
    with pytest.raises(ValueError, match=r"train-rle\.csv, 1\.1: a run lies outside the 4 x 3 image"):
        prepare_dataset("siim_acr", root, tmp_path / "out")
    put("train-rle.csv", "film,runs\n1.1,1 2\n")
    with pytest.raises(ValueError, match="no columns ImageId and EncodedPixels"):
        prepare_dataset("siim_acr", root, tmp_path / "out")


def test_a_damaged_film_is_left_out(tree, prepare, root):
    next(root.rglob("1.3.dcm")).write_bytes(b"")
    assert set(prepare("siim_acr")) == {f"1.{n}.dcm" for n in (1, 2, 4, 5, 6)}
