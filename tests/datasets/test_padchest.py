"""PadChest: labels, ages, polarity; no dates."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.schema import Record
from cxw_monai.io import read_radiograph
from tests.helpers.prepared import prepared_records

COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM")
COLUMNS += ("Projection", "PhotometricInterpretation_DICOM", "MethodLabel", "Labels")
DAMAGED = "216840111366964012819207061112010307142602253_04-014-084.png"
ROWS = [
    ("a.png", "0", "20150622", "s1", "p1", "1993.0", "F", "PA", "['pleural effusion', ' Pneumonia ', '']"),
    ("b.png", "0", "20150622", "s1", "p1", "1993.0", "F", "L", "['pneumonia']"),
    ("c.png", "54", "20090131", "s2", "p2", "1930.0", "M", "AP_horizontal", "['normal']"),
    ("d.png", "54", "20100101", "s3", "p3", "", "", "PA", "['unchanged']"),
    ("e.png", "54", "20100101", "s4", "p4", "1950.0", "O", "AP", ""),
    ("f.png", "54", "20100101", "s5", "p5", "1950.0", "M", "EXCLUDE", "['normal']"),
    (DAMAGED, "54", "20100101", "s6", "p6", "1950.0", "M", "PA", "['normal']"),
    ("g.png", "54", "20100101", "s7", "p7", "1950.0", "M", "COSTAL", "['rib fracture']"),
]


def chest(number: int) -> np.ndarray:
    """Two dark lungs in a bright body, with some noise."""
    film = np.full((64, 48), 40000.0)
    film[12:50, 8:20] = film[12:50, 28:40] = 8000
    film += np.random.default_rng(number).normal(0, 2000, film.shape)
    return film.clip(0, 65535).astype(np.uint16)


def make(root: Path, tagged: str = "", negative: bool = False, packed: bool = False) -> Path:
    """The tree; films in ``tagged`` are MONOCHROME1, and stored as negatives or not."""
    table = root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    root.mkdir()
    with gzip.open(f"{table}.gz", "wt", newline="") if packed else table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("", *COLUMNS))
        for number, (*known, labels) in enumerate(ROWS):
            name, folder = known[:2]
            is_tagged = name[0] in tagged
            writer.writerow((number, *known, f"MONOCHROME{1 if is_tagged else 2}", "Physician", labels))
            (root / folder).mkdir(exist_ok=True)
            film = chest(number)
            Image.fromarray(65535 - film if is_tagged and negative else film).save(root / folder / name)
    return root


def prepared(root: Path, **options) -> dict[str, Record]:
    records = prepared_records("padchest", root, distinct=False, **{"min_images": 1, **options})
    return {Path(record.image).stem: record for record in records}


def test_rows_by_hand(tmp_path: Path):
    records = prepared(make(tmp_path / "root", packed=True))
    assert set(records) == set("abcdeg")  # neither EXCLUDE nor damaged
    assert [records[n].view for n in "abceg"] == ["PA", "LAT", "AP", "AP", "COSTAL"]
    assert [records[n].age for n in "abcde"] == [22, 22, 79, None, 60]
    assert [records[n].sex for n in "acde"] == ["F", "M", None, "O"]
    labels = {"normal": 0, "pleural_effusion": 1, "pneumonia": 1, "rib_fracture": 0}
    assert records["a"].labels == labels and records["a"].extra["findings"] == "pleural effusion|pneumonia"
    assert records["c"].labels == {"normal": 1, "pleural_effusion": 0, "pneumonia": 0, "rib_fracture": 0}
    assert records["d"].labels == records["e"].labels == {}  # nothing said, nothing known
    assert records["a"].split == records["b"].split and records["a"].study == records["b"].study != records["c"].study


def test_no_date_or_birth_gets_into_the_outputs(tmp_path: Path):
    root = make(tmp_path / "root")
    prepared(root)
    text = "".join((tmp_path / "out" / name).read_text() for name in ("manifest.csv", "datalist.json", "summary.json"))
    assert not [word for row in ROWS for word in (row[2], row[5]) if word and word in text]


def test_rare_labels_have_no_column(tmp_path: Path):
    records = prepared(make(tmp_path / "root"), min_images=2)
    assert records["a"].labels == {"pneumonia": 1} and records["g"].labels == {"pneumonia": 0}
    assert records["g"].extra["findings"] == "rib fracture"


def test_frontal_only(tmp_path: Path):
    assert set(prepared(make(tmp_path / "root"), frontal_only=True)) == set("acde")


@pytest.mark.parametrize("negative", [True, False])
def test_monochrome1_is_inverted_only_where_the_film_is_a_negative(tmp_path: Path, negative: bool):
    root = make(tmp_path / "root", tagged="d", negative=negative)
    records = prepared(root)
    film = read_radiograph(tmp_path / "out" / records["d"].image).array[0]
    assert np.array_equal(film, chest(3).astype(np.float32) / 65535)
    assert records["d"].image == ("images/d.png" if negative else str(root / "54/d.png"))
    assert Path(records["a"].image).parent == root / "0"
    assert records["d"].extra["source_photometric"] == "MONOCHROME1"


def test_a_choice_overrules_the_measure_and_doubt_is_an_error(tmp_path: Path):
    root = make(tmp_path / "root", tagged="d")
    inverted = tmp_path / "out" / prepared(root, monochrome1="invert")["d"].image
    assert np.array_equal(np.asarray(Image.open(inverted)), 65535 - chest(3))
    noise = np.random.default_rng(0).integers(0, 65536, (64, 48)).astype(np.uint16)
    Image.fromarray(noise).save(root / "54/d.png")
    with pytest.raises(ValueError, match="--monochrome1 keep or invert"):
        prepared(root)


def test_a_missing_table_is_named_with_where_it_is_published(tmp_path: Path):
    (tmp_path / "root").mkdir()
    with pytest.raises(FileNotFoundError, match="PADCHEST_chest_x_ray.*bimcv.cipf.es"):
        prepared(tmp_path / "root")


@pytest.mark.parametrize("choice", ["measure", "invert"])
def test_a_damaged_film_is_left_out_listed_and_counted(tmp_path: Path, choice: str):
    root = make(tmp_path / "root", tagged="de", negative=True)  # d is the only PA among them
    whole = (root / "54/d.png").read_bytes()
    (root / "54/d.png").write_bytes(whole[: len(whole) // 2])
    records = prepared(root, monochrome1=choice)
    assert set(records) == set("abceg") and records["e"].image == "images/e.png"
    with (tmp_path / "out/left_out.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["what"], row["path"]) == ("film", str(root / "54/d.png"))
    assert "cannot be decoded, damaged or truncated" in row["reason"] and "bimcv.cipf.es" in row["remedy"]
    (root / "54/d.png").write_bytes(whole)  # mended: the next run takes it in
    assert set(prepared(root, monochrome1=choice)) == set("abcdeg")
    assert (tmp_path / "out/left_out.csv").read_text() == "what,path,reason,remedy\n"


def test_where_the_only_tagged_film_is_damaged_nothing_has_to_be_measured(tmp_path: Path):
    root = make(tmp_path / "root", tagged="d")
    (root / "54/d.png").write_bytes(b"")
    assert set(prepared(root)) == set("abceg")
