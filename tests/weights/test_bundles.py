"""Packaged bundles from anywhere: nothing is written outside the folder that is asked for."""

import stat
import zipfile
from pathlib import Path

import pytest

from cxw_monai.weights.bundles import BundleError, extract_bundle, find_bundle, open_bundle

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
    with pytest.raises(BundleError, match=r"twice.zip: holds 'bundle/models/model\.pt' twice"):
        extract_bundle(archive, tmp_path / "out")
    assert everything(tmp_path) == {"twice.zip"}


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
    monkeypatch.setattr("cxw_monai.weights.bundles._MOST_BYTES", 1_000_000)
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


ODD_NAMES = {
    "a drive below": "bundle/C:/x",
    "a colon": "bundle/a:b",
    "a stream": "bundle/models/model.pt:other",
    "a device's name": "bundle/NUL",
    "a device's name with an ending": "bundle/docs/com1.txt",
    "a dot at the end": "bundle/docs.",
    "a blank at the end": "bundle/docs /a",
    "a line end": "bundle/a\nb",
    "an escape": "bundle/\x1b[2J",
    "a dot": "bundle/./a",
    "two slashes": "bundle//a",
    "a wildcard": "bundle/a*b",
    "too long": "bundle/" + "x" * 256,
    "another case": "bundle/MODELS/Model.pt",
    "another Unicode form": "bundle/\u00e9/a",
    "a file as a folder": "bundle/models/model.pt/a",
    "above": "bundle/../../evil",
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_a_name_that_is_none_on_some_system_is_refused_before_anything_is_written(tmp_path, name):
    archive = make(tmp_path / "odd.zip", {**GOOD, "bundle/e\u0301/A": "", name: "x"})
    with pytest.raises(BundleError, match=r"odd\.zip: holds '.*; don't use this file") as raised:
        extract_bundle(archive, tmp_path / "out")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 800
    assert everything(tmp_path) == {"odd.zip"}


def test_a_folders_name_counts_too(tmp_path):
    archive = make(tmp_path / "odd.zip", {**GOOD, "bundle/C:/": ""})
    with pytest.raises(BundleError, match="'bundle/C:/'"):
        extract_bundle(archive, tmp_path / "out")
    folders = {**GOOD, "bundle/": "", "bundle/models/": ""}
    assert extract_bundle(make(tmp_path / "good.zip", folders), tmp_path / "out").is_dir()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    archive = make(tmp_path / "odd.zip", GOOD)
    member = zipfile.ZipInfo("bundle/models/odd")
    member.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(member, "/etc/passwd")
    with pytest.raises(BundleError, match=r"holds (the link )?'bundle/models/odd'"):
        extract_bundle(archive, tmp_path / "out")
    assert everything(tmp_path) == {"odd.zip"}


def patched(path: Path, member: str, local: int, central: int, value: bytes) -> None:
    """Overwrite a field of a member's local header and of its entry in the directory (places within each)."""
    content = bytearray(path.read_bytes())
    name = member.encode()
    at_local, at_central = content.index(name) - 30, content.rindex(name) - 46
    content[at_local + local : at_local + local + len(value)] = value
    content[at_central + central : at_central + central + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("local", "central", "value", "message"),
    [
        (6, 8, b"\x01\x00", "which is encrypted; don't use this file"),  # flags, APPNOTE 4.4.4
        (6, 8, b"\x41\x00", "which is encrypted"),
        (8, 10, b"\x63\x00", r"compressed in an unknown way \(99\)"),  # method, 4.4.5: AES
        (8, 10, b"\x08\x00", "not a whole zip .*model"),  # says deflated, is stored
        (8, 10, b"\x0c\x00", "not a whole zip .*model"),  # bzip2
        (8, 10, b"\x0e\x00", "not a whole zip .*model"),  # LZMA
        (14, 16, b"\x00\x00\x00\x00", "not a whole zip .*model"),  # CRC-32
        (22, 24, b"\xff\xff\xff\x7f", "not a whole zip .*model"),  # size unpacked, 2 GiB
    ],
)
def test_an_encrypted_or_damaged_member_is_named(tmp_path, local, central, value, message):
    archive = make(tmp_path / "bad.zip", GOOD)
    patched(archive, "bundle/models/model.pt", local, central, value)
    with pytest.raises(BundleError, match=rf"bad\.zip: .*{message}"):
        extract_bundle(archive, tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]


def test_a_name_that_ends_at_a_nul_is_refused(tmp_path):
    archive = make(tmp_path / "bad.zip", {**GOOD, "bundle/models/aX.pt": ""})
    archive.write_bytes(archive.read_bytes().replace(b"models/aX", b"models/a\0"))
    with pytest.raises(BundleError, match=r"holds 'bundle/models/a\\x00\.pt'"):
        extract_bundle(archive, tmp_path / "out")


def test_no_damage_of_a_byte_ends_in_another_error(tmp_path):
    """Each byte of the directory, and some of the rest, turned over in turn."""
    whole = make(tmp_path / "whole.zip", GOOD).read_bytes()
    for at in range(0, len(whole)):
        bad = bytearray(whole)
        bad[at] ^= 0xFF
        (tmp_path / "bad.zip").write_bytes(bad)
        try:
            extract_bundle(tmp_path / "bad.zip", tmp_path / f"out{at}")
        except BundleError as error:
            assert str(tmp_path / "bad.zip") in str(error)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"whole.zip", "bad.zip"}


def test_a_link_in_the_place_of_the_bundle_is_not_followed(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="exists already"):
        extract_bundle(make(tmp_path / "good.zip", GOOD), tmp_path / "out")
