"""ISBI 2015 cephalometric films: landmarks of two readers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxw_monai.data.schema import Record
from cxw_monai.datasets import prepare_dataset
from cxw_monai.datasets.cephalometric import LANDMARKS
from cxw_monai.io import read_radiograph
from tests.helpers.prepared import prepared_records

FILMS = {"TrainingData": (1, 2, 150), "Test1Data": (151,), "Test2Data": (301, 400)}
GREY = np.tile(np.arange(1935, dtype=np.uint16) % 251, (20, 1)).astype(np.uint8)  # a strip of a film


def annotation(dx: int, dy: int) -> str:
    points = "\n".join(f"{100 * n + dx},{n + dy}" for n in range(1, 20))
    return points + "\n" + "\n".join("12345678")  # eight classifications follow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six of the 400 films, 20 rows of each; one is a PNG of half the width."""
    root = tmp_path / "root"
    for reader in ("senior", "junior"):
        (root / f"AnnotationsByMD/400_{reader}").mkdir(parents=True)
    for subset, numbers in FILMS.items():
        (root / "RawImage" / subset).mkdir(parents=True)
        for n in numbers:
            film = Image.fromarray(GREY ^ np.uint8(n % 7)).convert("RGB")
            if n == 400:
                film.resize((967, 10)).save(root / f"RawImage/{subset}/400.png")
            else:
                film.save(root / f"RawImage/{subset}/{n:03d}.bmp")
            (root / f"AnnotationsByMD/400_senior/{n:03d}.txt").write_text(annotation(0, 0))
            (root / f"AnnotationsByMD/400_junior/{n:03d}.txt").write_text(annotation(3, -4 if n == 1 else 0))
    return root


def prepared(root: Path) -> dict[str, Record]:
    records = prepared_records("cephalometric", root, distinct=False, allow_missing=True, validation=0.34)
    return {str(record.patient_id): record for record in records}


def test_landmarks_are_the_mean_of_both_readers(root: Path):
    records = prepared(root)
    assert set(records) == {"001", "002", "150", "151", "301", "400"}
    first = records["001"]
    assert list(first.landmarks) == list(LANDMARKS) and len(LANDMARKS) == 19
    assert first.landmarks["sella"] == (101.5, -1) and first.landmarks["articulare"] == (1901.5, 17)
    assert json.loads(first.extra["reader_distance_mm"])["sella"] == 0.5  # 3 and 4 px of 0.1 mm
    assert json.loads(records["002"].extra["reader_distance_mm"])["menton"] == 0.3
    scale = 967 / 1935
    assert records["400"].landmarks["nasion"] == (round(201.5 * scale, 2), round(2 * scale, 2))
    assert records["400"].extra["pixel_spacing_mm"] == f"{0.1 / scale:g}"


def test_splits_are_the_published_ones(root: Path):
    records = prepared(root)
    assert sorted(records[n].split for n in ("001", "002", "150")) == ["training", "training", "validation"]
    tests = {n: records[n].extra["subset"] for n in records if records[n].split == "test"}
    assert tests == {"151": "test1", "301": "test2", "400": "test2"}


def test_bitmaps_become_png_of_the_same_grey_values(root: Path):
    records = prepared(root)
    assert records["001"].image == "images/001.png"
    film = read_radiograph(root.parent / "out/images/001.png", min_size=10)
    assert np.array_equal(np.rint(film.array[0] * 255).astype(np.uint8), GREY ^ np.uint8(1))
    assert Path(records["400"].image) == root / "RawImage/Test2Data/400.png"


def test_missing_and_short_annotations_are_named(root: Path):
    path = root / "AnnotationsByMD/400_junior/150.txt"
    path.write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match="400_junior/150.txt: 2 landmarks, expected 19"):
        prepared(root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="400_junior/150.txt.*figshare.com"):
        prepared(root)
    with pytest.raises(FileNotFoundError, match="394 of 400 images don't exist"):
        prepare_dataset("cephalometric", root, root.parent / "out")


def test_a_damaged_film_is_left_out(root: Path):
    path = root / "RawImage/TrainingData/002.bmp"
    path.write_bytes(path.read_bytes()[:500])
    (root / "RawImage/Test2Data/400.png").write_bytes(b"")
    assert set(prepared(root)) == {"001", "150", "151", "301"}
