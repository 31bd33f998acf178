"""Packaged bundles from anywhere: nothing is written outside the folder that is asked for."""

import stat
import zipfile
from pathlib import Path

import pytest

from cxw_monai.bundle_files import BundleError, extract_bundle, find_bundle, open_bundle

GOOD = {"bundle/configs/metadata.json": "{}", "bundle/models/model.pt": "weights"}


def make(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_whole_package(tmp_path):
    archive = make(tmp_path / "bundle_v1.zip", GOOD)
    bundle = extract_bundle(archive, tmp_path / "new" / "here")
    assert bundle == tmp_path / "new" / "here" / "bundle"
    assert (bundle / "models" / "model.pt").read_text() == "weights"
    assert everything(tmp_path / "new") == {"here", "here/bundle", *(f"here/{name}" for name in everything_of(GOOD))}
    with pytest.raises(BundleError, match="bundle: exists already"):
        extract_bundle(archive, tmp_path / "new" / "here")
    with open_bundle(archive) as place:
        assert (place / "configs" / "metadata.json").is_file()
    assert not place.exists()


def everything_of(members: dict[str, str]) -> set[str]:
    return {str(part) for name in members for part in (Path(name), Path(name).parent)}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "bundle/../../evil.txt",
        "bundle/../evil.txt",
        "/tmp/evil.txt",
        "//server/evil.txt",
        "..\\evil.txt",
        "bundle\\..\\..\\evil.txt",
        "C:/evil.txt",
        "evil.txt",
    ],
)
def test_a_name_that_leads_out_is_refused_before_anything_is_written(tmp_path, name):
    archive = make(tmp_path / "evil.zip", {**GOOD, name: "evil"})
    inner = tmp_path / "a" / "b"
    with pytest.raises(BundleError, match=r"evil.zip: holds .*evil.txt', outside a bundle's folder"):
        extract_bundle(archive, inner)
    assert everything(tmp_path) == {"evil.zip"}


def test_a_link_is_refused(tmp_path):
    archive = make(tmp_path / "evil.zip", GOOD)
    link = zipfile.ZipInfo("bundle/models/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="holds the link 'bundle/models/link'"):
        extract_bundle(archive, tmp_path / "out")
    assert everything(tmp_path) == {"evil.zip"}


@pytest.mark.parametrize(
    "members", [{}, {"bundle/readme": "no metadata"}, {**GOOD, "other/configs/metadata.json": "{}"}]
)
def test_a_zip_that_is_not_one_bundle(tmp_path, members):
    with pytest.raises(BundleError, match="not one bundle"):
        extract_bundle(make(tmp_path / "some.zip", members), tmp_path / "out")
    assert everything(tmp_path) == {"some.zip"}


def test_a_name_twice_is_refused(tmp_path):
    archive = make(tmp_path / "twice.zip", GOOD)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as content:
        content.writestr("bundle/models/model.pt", "other weights")
    with pytest.raises(BundleError, match="twice.zip: not a whole zip"):
        extract_bundle(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_a_damaged_zip_leaves_nothing(tmp_path, damage):
    archive = make(tmp_path / "bad.zip", GOOD)
    content = bytearray(archive.read_bytes())
    if damage == "cut":
        content = content[:-30]
    elif damage == "text":
        content = bytearray(b"<html>")
    else:
        content[content.index(b"weights")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(BundleError, match=r"bad.zip: not a whole zip \(.*; give a zip that"):
        extract_bundle(archive, tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]


def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cxw_monai.bundle_files._MOST_BYTES", 1_000_000)
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("bundle/configs/metadata.json", "{}")
        content.writestr("bundle/models/model.pt", bytes(2_000_000))
    assert archive.stat().st_size < 10_000
    with pytest.raises(BundleError, match="2000002 bytes unpacked, more than 1000000"):
        extract_bundle(archive, tmp_path / "out")
    assert everything(tmp_path) == {"bomb.zip"}


def test_a_name_is_not_a_way_out_of_the_bundles():
    for name in ("../cxw_monai", "../../etc", "."):
        if Path(name).exists():
            continue
        with pytest.raises(BundleError, match="no such file"):
            find_bundle(name)
    assert find_bundle("chexworld_segmentation").name == "chexworld_segmentation"
