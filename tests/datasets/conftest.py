"""Made-up trees in the published layouts: files of a few pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cxw_monai.data.manifest import read_records
from cxw_monai.data.schema import Record
from cxw_monai.data.validation import validate
from cxw_monai.datasets import prepare_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for the published files."""
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


@pytest.fixture
def put(root: Path) -> Callable[..., Path]:
    """Writes a file below ``root``: a picture by its extension (``size`` is width, height), else the given text."""

    def write(name: str, text: str = "", *, size: tuple[int, int] = (8, 6), **attributes: object) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.new("L", size).save(path)
        elif path.suffix in (".dcm", ".dicom"):
            _write_dicom(path, size, attributes)
        else:
            path.write_text(text, encoding="utf-8")
        return path

    return write


def _write_dicom(path: Path, size: tuple[int, int], attributes: dict[str, object]) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.Columns, header.Rows = size
    header.BitsAllocated, header.PixelRepresentation = 8, 0
    header.PixelData = np.zeros(size[::-1], np.uint8).tobytes()
    header["PixelData"].VR = "OB"
    for name, value in attributes.items():
        setattr(header, name, value)
    header.save_as(path)


@pytest.fixture
def prepare(root: Path, tmp_path: Path) -> Callable[..., dict[str, Record]]:
    """Prepares ``root``, checks what must hold of every set, and gives the records by their image's file name."""

    def run(name: str, **options: object) -> dict[str, Record]:
        out = tmp_path / "out"
        prepare_dataset(name, root, out, **options)
        records = list(read_records(out / "manifest.csv"))
        validate(records, base_dir=out, check_files=True)
        assert list(read_records(out / "datalist.json")) == records
        images = {split: {r.image for r in records if r.split == split} for split in ("validation", "test")}
        assert images["test"] and not images["validation"] & images["test"]
        return {Path(record.image).name: record for record in records}

    return run
