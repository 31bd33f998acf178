"""Facts from DICOM headers: nothing is told that the header doesn't say."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from cxw_monai.datasets.headers import read_header
from cxw_monai.io.radiograph import RadiographError

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR CS", "ignore:End of file reached")


def code(value: str = "", meaning: str = "", scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@pytest.mark.parametrize(
    ("position", "codes", "view"),
    [
        ("PA", [], "PA"),
        ("", [code("272479007", "postero-anterior")], "PA"),
        (None, [code("399348003", "antero-posterior")], "AP"),
        ("", [code("R-10206", "antero-posterior", "SRT")], "AP"),
        ("", [code("R-10214", "", "SRT")], "PA"),
        ("", [code("399173006", "left lateral")], "LAT"),
        ("", [code("", "Postero-Anterior")], "PA"),  # the meaning alone
        ("", [code("99", "posterior anterior", "99VENDOR")], "PA"),
        ("", [code("99", "Left Lateral", "99VENDOR")], "LAT"),
        ("", [code("99", "left oblique", "99VENDOR")], "LEFT OBLIQUE"),  # the source's own word
        ("AP", [code("399348003", "antero-posterior")], "AP"),
        ("PA", [code("399348003", "antero-posterior")], None),  # contradictions tell nothing
        ("", [code("399348003", "postero-anterior")], None),
        ("", [code("399348003", ""), code("272479007", "")], None),
        ("", [code()], None),
        ("", [], None),
        ("POSTERO-ANTERIOR", [], "PA"),
        ("antero_posterior", [], "AP"),
        ("OBLIQUE", [], "OBLIQUE"),
    ],
)
def test_the_view_by_position_code_or_meaning(put, position, codes, view):
    attributes = {} if position is None else {"ViewPosition": position}
    path = put("a.dcm", ViewCodeSequence=codes, **attributes)
    header = read_header(path)
    assert (header.view, header.width, header.height) == (view, 8, 6)
    assert header.sex is None and header.age is None and header.patient_id is None


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\0" * 132, b"\0" * 128 + b"DICM", b"\xff" * 500])
def test_a_damaged_header_is_the_films_own_error(root, content):
    (root / "a.dcm").write_bytes(content)
    with pytest.raises(RadiographError, match=r"a\.dcm: no DICOM header with rows and columns"):
        read_header(root / "a.dcm")
