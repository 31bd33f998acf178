"""CSV cells: harmless in a spreadsheet, and read back as they were."""

from __future__ import annotations

import csv
import io

import pytest

from cxw_monai.data.manifest import read_datalist, read_records
from cxw_monai.data.manifest import write_csv as write_manifest
from cxw_monai.data.schema import Record
from cxw_monai.io.files.csv_files import CsvWriter, read_rows, unguarded, write_rows

FORMULAS = ["=1+1", "+a", "-2+3", "@SUM(A1)", "\ta", "\ra", "\na", "＝a", "'=a", "''@a", "-", "+", "=", "'-1 a"]  # noqa: RUF001
HARMLESS = [
    "",
    "a",
    "'a",
    "a=b",
    "-1.5",
    "+3",
    "1e-5",
    "-2.5E+10",
    "-inf",
    "nan",
    "a,b",
    'a"b',
    "a\nb",
    "a\r\nb",
    "a\rb",
]


def _written(*cells: object) -> str:
    stream = io.StringIO(newline="")
    CsvWriter(stream).writerow(cells)
    return stream.getvalue()


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_sees_a_text_where_there_is_one(text):
    (cell,) = next(csv.reader(io.StringIO(_written(text), newline="")))
    assert cell == f"'{text}" and unguarded(cell) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text):
    (cell, last) = next(csv.reader(io.StringIO(_written(text, "x"), newline="")))
    assert (cell, last) == (text, "x") and unguarded(cell) == text


def test_numbers_are_numbers():
    assert _written(-1, 2.5, -1e-9, None, True, float("-inf")) == "-1,2.5,-1e-09,,True,-inf\n"


def test_rows_and_columns_read_back():
    rows = [{"=a": text, "b": other} for text in FORMULAS for other in HARMLESS]
    stream = io.StringIO(newline="")
    write_rows(stream, ["=a", "b"], rows)
    stream.seek(0)
    assert read_rows(stream) == rows
    with pytest.raises(ValueError, match=r"columns \['c'\] are not among"):
        write_rows(io.StringIO(), ["a"], [{"c": 1}])


def test_a_byte_that_is_no_character_ends_no_table():
    assert _written("f\udcff") == "f\\udcff\n"


def test_a_manifest_reads_back_its_own_paths_and_patients(tmp_path):
    names = ["=x.png", "+x.png", "@x.png", "-x.png", "'=x.png", "a\nb.png", "a\rb.png", "a,b.png", "'a.png"]
    records = []
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        records.append(Record(name, patient_id=f"-{name}", labels={"=odd": 1}, extra={"@note": "\tx"}))
    write_manifest(tmp_path / "m.csv", records)
    assert list(read_records(tmp_path / "m.csv")) == records
    items = read_datalist(tmp_path / "m.csv")
    assert [item["image"] for item in items] == [str(tmp_path / name) for name in names]
    assert [item["patient_id"] for item in items] == [f"-{name}" for name in names]
    with (tmp_path / "m.csv").open(newline="") as stream:
        assert not [cell for row in csv.reader(stream) for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
