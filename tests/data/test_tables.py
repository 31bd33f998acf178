"""Manifests as they come: wrong encodings, hostile values, contradictions. Each ends in a line that names the file."""

from __future__ import annotations

import csv
import gzip
import json

import pytest

from cxw_monai.data.manifest import read_datalist, read_records, write_csv, write_datalist
from cxw_monai.data.schema import Box, Record
from cxw_monai.data.tables import csv_rows
from cxw_monai.data.validation import validate
from cxw_monai.io.files.json_files import read_json
from cxw_monai.io.files.printable import shown

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "x" * 10_000_000


def _csv(text: str, encoding: str = "utf-8") -> tuple[str, bytes]:
    return "m.csv", text.encode(encoding)


def _json(text: str, encoding: str = "utf-8") -> tuple[str, bytes]:
    return "m.json", text.encode(encoding)


def _boxes(boxes: str, more: str = "") -> tuple[str, bytes]:
    """A film of 8 x 6 pixels with these boxes."""
    return _json(f'{{"training": [{{"image": "a.png", "width": 8, "height": 6, "bbox_xywh": {boxes}{more}}}]}}')


def _box_cell(boxes: str) -> tuple[str, bytes]:
    cell = boxes.replace('"', '""')
    return _csv(f'image,width,height,bbox_xywh\na.png,8,6,"{cell}"\n')


REFUSED = {
    "a column twice": (_csv("image,label_x,label_x\na.png,0,1\n"), "line 1: the column 'label_x' is there twice"),
    "columns without a name": (
        _csv("image,,\na.png,,\n"),
        r"a column without a name is there twice \(columns 2 and 3\)",
    ),
    "semicolons": (_csv("image;label_x\na.png;1\n"), "line 1: semicolons between the cells; save it with commas"),
    "another case": (_csv(" Image \na.png\n"), "no column 'image' among .*; rename ' Image '"),
    "a label as a word": (
        _csv("image,label_x\na.png,yes\n"),
        "line 2: column label_x: cannot read 'yes' .no finite number; 1 is present, 0 absent; leave it empty",
    ),
    "tabulators": (_csv("image\tlabel_x\na.png\t1\n"), "line 1: tabulators between the cells"),
    "cp1252": (
        _csv("image,note\na.png,x\nb.png,Müller\n", "cp1252"),
        r"line 3: not UTF-8 \(byte 0xfc\); save it as UTF-8",
    ),
    "UTF-16": (_csv("image\na.png\n", "utf-16"), "line 1, in UTF-16: not UTF-8"),
    "UTF-16 without a mark": (_csv("image\na.png\n", "utf-16-le"), "line 1: holds NUL characters: UTF-16"),
    "NUL": (_csv("image,note\na.png,a\0b\n"), "line 2: holds NUL characters"),
    "an empty file": (_csv(""), "the file is empty; expected a header with image"),
    "a short row": (_csv("image,note\na.png,x\nb.png\n"), "line 3: not 2 fields like the header, but 1"),
    "a long row": (_csv("image,note\na.png,x,y\n"), "line 2: not 2 fields like the header, but 3"),
    "a huge field": (
        _csv(f"image,note\na.png,{'x' * 200_000}\n"),
        "line 2: not a readable CSV .*field larger",
    ),
    "an open quote": (_csv('image,note\na.png,"x\n'), "not a readable CSV"),
    "no such column": (_csv(f"path,{LONG[:100_000]}\na,b\n"), r"no column 'image' among \['path', 'xxx"),
    "10 MB in a label": (_csv(f"image,label_x\na.png,{LONG[:130_000]}\n"), "column label_x: cannot read 'xxx"),
    "escapes in a label": (_csv("image,label_x\na.png,\x1b[31mred\n"), r"cannot read '\\x1b\[31mred'"),
    "NaN as a label": (_csv("image,label_x\na.png,nan\n"), "label_x: cannot read 'nan' .*leave it empty"),
    "an infinite label": (_csv("image,label_x\na.png,-1e999\n"), "label_x: cannot read '-1e999'"),
    "a deep cell": (_csv(f'image,landmark_x\na.png,"{DEEP[:100_000]}"\n'), "landmark_x: cannot read .*nested too deep"),
    "a key twice": (
        _json('{"training": [{"image": "a.png", "label_x": 0, "label_x": 1}]}'),
        "key 'label_x' is there twice",
    ),
    "a list twice": (_json('{"training": [], "training": ["a.png"]}'), "the key 'training' is there twice"),
    "a key twice in a cell": (_csv('image,landmark_x\na.png,"{""a"": 1, ""a"": 2}"\n'), "the key 'a' is there twice"),
    "deep": (_json(DEEP), "not readable JSON .nested too deep"),
    "deep inside": (_json(f'{{"training": [{{"image": "a.png", "note": {DEEP}}}]}}'), "nested too deep"),
    "a long number": (_json('{"training": [{"image": "a.png", "age": ' + "9" * 5000 + "}]}"), "not readable JSON"),
    "NaN": (_json('{"training": [{"image": "a.png", "label_x": NaN}]}'), "NaN is no number; write null"),
    "an infinite number": (
        _json('{"training": [{"image": "a.png", "label_x": 1e999}]}'),
        "label_x must be a finite number",
    ),
    "text as a label": (_json('{"training": [{"image": "a.png", "label_x": "1"}]}'), "label_x must be a finite number"),
    "10 MB in JSON": (
        _json(f'{{"training": [{{"image": "a.png", "label_x": "{LONG}"}}]}}'),
        "label_x must be a finite",
    ),
    "a key of 10 MB": (_json(f'{{"{LONG}": 1, "{LONG}": 2}}'), "is there twice"),
    "JSON in cp1252": (_json('{"training": ["ä.png"]}', "cp1252"), "not UTF-8: byte 0xe4"),
    "JSON in UTF-16": (_json('{"training": ["a.png"]}', "utf-16"), "not UTF-8"),
    "empty JSON": (_json(""), "not readable JSON"),
    "another split in its list": (_json('{"training": [{"image": "a.png", "split": "test"}]}'), "split"),
    "no list": (_json('{"training": 3}'), "list of items"),
    "boxes no list": (_boxes("7"), "bbox_xywh must be a list of boxes, got 7"),
    "a NaN box": (_boxes('[["m", NaN, 1, 2, 3]]'), "NaN is no number"),
    "an infinite box": (_boxes('[["m", 1e999, 1, 2, 3]]'), r"a box is \[label, .*; its numbers must be finite"),
    "a text in a box": (_boxes('[["m", "1", 1, 2, 3]]'), r"a box is \[label"),
    "a negative box": (_boxes('[["m", -3, 1, 2, 3]]'), "is empty or not within 8 x 6 pixels"),
    "an inverted box": (_boxes('[["m", 5, 1, -2, 3]]'), "is empty or not within 8 x 6 pixels"),
    "an empty box": (_boxes('[["m", 5, 1, 2, 0]]'), "is empty or not within"),
    "a box outside": (_boxes('[["m", 5, 1, 6, 3]]'), "is empty or not within 8 x 6 pixels"),
    "a box below": (_boxes('[["m", 5, 1, 2, 30]]'), "is empty or not within 8 x 6 pixels"),
    "a box of six": (_boxes('[["m", 5, 1, 2, 3, 4]]'), r"a box is \[label"),
    "a landmark of one": (_boxes("[]", ', "landmark_l": [1]'), r"landmark_l must be \[x, y\]"),
    "a NaN landmark": (_csv('image,landmark_l\na.png,"[1, NaN]"\n'), "landmark_l: cannot read .*NaN is no number"),
    "a box cell outside": (_box_cell('[["m", 5, 1, 6, 3]]'), "line 2: box 'm' .* is empty or not within 8 x 6 pixels"),
    "a NaN box cell": (_box_cell('[["m", NaN, 1, 6, 3]]'), "bbox_xywh: cannot read .*NaN is no number"),
    "a negative box cell": (_box_cell('[["m", -2, 1, 1, 1]]'), "is empty or not within"),
}


@pytest.fixture
def put(tmp_path):
    """Writes a manifest beside the films a.png, b.png and c.png."""
    for name in "abc":
        (tmp_path / f"{name}.png").touch()

    def write(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def test_a_film_may_have_a_row_for_each_of_its_findings(put):
    path = put(*_csv("image,patient_id,label_x,finding\na.png,p,1,nodule\n./a.png,p,1,mass\n"))
    assert [(item["finding"], item["label_x"]) for item in read_datalist(path)] == [("nodule", 1), ("mass", 1)]


@pytest.mark.parametrize("read", [read_datalist, lambda path: list(read_records(path))], ids=["items", "records"])
@pytest.mark.parametrize(("file", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_by_either_reader(put, read, file, message):
    path = put(*file)
    with pytest.raises(ValueError, match=message) as raised:
        read(path)
    said = str(raised.value)
    assert str(path) in said and len(said) < 1000 and said.isprintable()


@pytest.mark.parametrize(
    ("file", "message"),
    {
        "a film twice": (
            _csv("image,label_x\na.png,1\nb.png,0\n./a.png,0\n"),
            r"line 4: the film .*a\.png is listed in line 2 already with another label_x; list each film once",
        ),
        "a film in two splits": (
            _csv("image,split\na.png,training\na.png,test\n"),
            "line 3: the film .* is listed in line 2 already with another split",
        ),
        "a patient in two splits": (
            _csv("image,patient_id,split\na.png,SECRET,training\nb.png,SECRET,test\n"),
            "line 3: a patient is in two splits, test here and training in line 2",
        ),
        "a film in two lists": (
            _json('{"training": ["a.png"], "test": [{"image": "a.png"}]}'),
            r"test\[0\]: the film .* is listed in item 0 already with another split",
        ),
        "a patient in two lists": (
            _json(
                '{"training": [{"image": "a.png", "patient_id": "SECRET"}],'
                ' "validation": [{"image": "b.png", "patient_id": "SECRET"}]}'
            ),
            r"validation\[0\]: a patient is in two splits",
        ),
        "a path with NUL": (_json('{"training": [{"image": "a.png\\u0000"}]}'), "'image' must be a path, got 'a.png"),
    }.values(),
)
def test_contradictions_in_the_whole_file_are_refused(put, file, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_datalist(put(*file))
    assert "SECRET" not in str(raised.value)


def test_a_missing_path_is_shown_so_that_one_sees_why(put):
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images don't exist \('.*/ b\.png'\)"):
        read_datalist(put(*_csv("image\na.png\n b.png\n")))
    with pytest.raises(FileNotFoundError, match=r"images don't exist \('.*\\x1b\[2J\.png'\)"):
        read_datalist(put(*_csv("image\n\x1b[2J.png\n")))
    with pytest.raises(FileNotFoundError) as raised:
        read_datalist(put(*_json(json.dumps([LONG]))))
    assert len(str(raised.value)) < 1000


def test_what_is_taken(put):
    """A byte order mark, no rows, lists of MONAI with what we don't know, a box on the edge, unknown as null."""
    assert read_datalist(put("m.csv", "\ufeffimage\n".encode())) == []
    assert read_datalist(put("m.csv", b"image,,note\r\na.png,1,x\r\n\r\n"))[0]["note"] == "x"
    listed = read_datalist(put("d.json", "\ufeff".encode() + b'{"training": [{"image": "a.png", "label": [1, 0]}]}'))
    assert listed[0]["label"] == [1, 0]
    assert read_datalist(put(*_boxes('[["m", 0, 0, 8.5, 6], ["n", -0.5, 1, 1, 1]]')))[0]["width"] == 8
    assert next(read_records(put(*_boxes("null", ', "label_x": null, "landmark_l": null')))).boxes is None
    far = '{"training": [{"image": "a.png", "bbox_xywh": [["m", 4000, 1, 6, 3]]}]}'  # of an image of unknown size
    assert next(read_records(put(*_json(far)))).boxes == [Box("m", 4000, 1, 6, 3)]


def test_what_is_written_reads_back(tmp_path):
    texts = ("a, b", 'say "x"', "two\nlines", " blank ", "ü", "'quoted'", "a;b", "\\n")
    records = [Record(f"{n} ü,;.png", patient_id=f"p{n}", extra={"note": text}) for n, text in enumerate(texts)]
    write_csv(tmp_path / "m.csv", records)
    write_datalist(tmp_path / "m.json", records)
    assert list(read_records(tmp_path / "m.csv")) == list(read_records(tmp_path / "m.json")) == records


def test_published_tables(tmp_path):
    (tmp_path / "t.csv").write_text("name,,\na,1,2\n")
    assert [cells for _, _, cells in csv_rows(tmp_path / "t.csv", published="https://here")] == [["a", "1", "2"]]
    whole = gzip.compress(b"name\n" + b"".join(b"film%d\n" % n for n in range(5000)))
    (tmp_path / "t.csv.gz").write_bytes(whole)
    assert sum(1 for _ in csv_rows(tmp_path / "t.csv.gz")) == 5000
    for content in (whole[:-20], whole[:200] + b"\xff" * 50 + whole[250:], b"<html>"):
        (tmp_path / "t.csv.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"t\.csv\.gz.*(damaged|not UTF-8|not a readable CSV)"):
            list(csv_rows(tmp_path / "t.csv.gz"))
    before = csv.field_size_limit()
    with pytest.raises(ValueError, match=r"n\.json: not readable JSON"):
        (tmp_path / "n.json").write_bytes(b"\0")
        read_json(tmp_path / "n.json")
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb\x1b\x00", "'a\\nb\\x1b\\x00'"), ("\udcff", "'\\udcff'"), (7, "7"), ([["m", 1]], "[['m', 1]]")],
)
def test_values_in_errors(value, text):
    assert shown(value) == text


def test_long_values_in_errors_are_short():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(LONG)) < 80 and len(shown([LONG] * 1000)) < 600 and len(shown(deep)) < 80
    with pytest.raises(ValueError) as raised:
        validate([Record(LONG, sex=LONG, split=LONG), Record("\x1b[2J", age=float("nan"), width=float("inf"))])
    assert len(str(raised.value)) < 3000 and str(raised.value).isprintable()
