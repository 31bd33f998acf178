"""What is sent: films are taken, everything else is refused with a reason that holds nothing of its header."""

from __future__ import annotations

import pytest

from cxw_monai.io import RadiographError
from cxw_monai.service.intake import receive
from cxw_monai.service.queue import FilmQueue
from cxw_monai.service.stow import parts, stow_answer
from tests.service.conftest import files_below, multipart, uid_of

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Modality": "CT"}, "not of modality CR, DX, RG"),
        ({"Modality": None}, "not of modality"),
        ({"sop_class": CT}, "CT Image Storage, which is no radiograph"),
        ({"StudyInstanceUID": None}, "no valid UIDs"),
        ({"SOPInstanceUID": "1.2.3/../../x"}, "no valid UIDs"),
        ({"SOPInstanceUID": "1." * 40 + "1"}, "no valid UIDs"),
    ],
)
def test_what_is_no_film_is_refused(tmp_path, film, attributes, reason):
    queue = FilmQueue(tmp_path / "q")
    with pytest.raises(RadiographError, match=reason) as raised:
        receive(queue, film(1, **attributes))
    assert "SECRET" not in str(raised.value) and files_below(queue.folder) == set()


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\x08\x00" * 40])
def test_what_is_damaged_is_refused(tmp_path, content):
    queue = FilmQueue(tmp_path / "q")
    with pytest.raises(RadiographError):
        receive(queue, content)
    assert files_below(queue.folder) == set() and sum(queue.counts().values()) == 0


def test_a_film_is_kept_to_the_byte(tmp_path, film):
    queue = FilmQueue(tmp_path / "q")
    assert receive(queue, film(1)).uid == uid_of(1)
    assert queue.film_file(queue.take().key).read_bytes() == film(1)


def test_parts_of_a_body():
    body, kind = multipart(b"first\r\n--betw", b"", b"third")
    assert [body[start:end] for start, end in parts(body, kind)] == [b"first\r\n--betw", b"", b"third"]
    assert [body[start:end] for start, end in parts(b"preamble\r\n" + body, kind)] != []
    assert list(parts(b"film", "application/dicom")) == [(0, 4)]
    quoted = kind.replace("boundary=between", 'boundary="between"')
    assert len(list(parts(body, quoted))) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body, kind: (body[:-20], kind), "cut off"),
        (lambda body, kind: (body, "multipart/related"), "no usable boundary"),
        (lambda body, kind: (body, "multipart/related; boundary=" + "b" * 201), "no usable boundary"),
        (lambda body, kind: (b"x" + body, kind), "doesn't begin"),
        (lambda body, kind: (b"--between--", kind), "has no part"),
        (lambda body, kind: (b"--between\r\n" + b"x" * 5000 + b"\r\n\r\n", kind), "cut off"),
        (lambda body, kind: (b"--between\r\n\r\nx\r\n" * 1001 + b"--between--", kind), "more than 1000"),
    ],
)
def test_a_body_that_is_none(change, reason):
    with pytest.raises(ValueError, match=reason):
        list(parts(*change(*multipart(b"a", b"b"))))


def test_the_answer_of_a_store_transaction():
    answer = stow_answer([("1.2", "3.4")], ["x" * 99])
    assert answer["00081199"]["Value"][0]["00081155"] == {"vr": "UI", "Value": ["3.4"]}
    assert answer["00081198"]["Value"][0]["00000902"]["Value"] == ["x" * 64]
    assert stow_answer([], []) == {}
