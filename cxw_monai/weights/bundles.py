"""Where a bundle's files are: in a folder, under a name, or in a packaged zip.

``python -m cxw_monai.weights.bundles NAME`` prints a bundle's folder, for ``python -m monai.bundle run --bundle_root``.
"""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

from cxw_monai.io.files.printable import printable
from cxw_monai.io.files.zip_members import DamagedZipError, MemberError, checked_members, opened_zip, unpack_member

__all__ = ["BundleError", "extract_bundle", "find_bundle", "named_bundle", "open_bundle"]

_INSTALLED = Path(__file__).resolve().parents[1] / "bundles"  # a wheel brings them
_CHECKOUT = _INSTALLED.parents[1] / "bundles"  # a checkout has them beside the package
_OWN = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
_MOST_BYTES = 16 * 2**30  # of one packaged bundle, unpacked
_OTHER = "give a zip that scripts/package_bundle.py made"


class BundleError(ValueError):
    """A bundle that is missing or not what it should be; names the file, the reason and the remedy."""

    def __init__(self, path: str | PathLike[str], reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path, self.reason, self.remedy = Path(path), reason, remedy


def _places() -> Iterator[Path]:
    """Where bundles are looked for by name: among the package's own, and where MONAI keeps downloaded ones."""
    yield _OWN
    from torch import hub  # takes seconds to import, and is rarely needed

    yield Path(hub.get_dir()) / "bundle"


def named_bundle(name: str) -> Path | None:
    """Folder of the bundle of this name: this package's own, or one in ``torch.hub.get_dir()/bundle``; None for others.

    This is the one look-up by name, for a checkout, an editable install and a wheel.
    """
    return next((place / name for place in _places() if (place / name / "configs" / "metadata.json").is_file()), None)


def find_bundle(name_or_path: str | PathLike[str]) -> Path:
    """The file or folder that is meant.

    Args:
        name_or_path: a path, or the name of a bundle that :func:`named_bundle` finds.

    Raises:
        BundleError: there is none.
    """
    path = Path(name_or_path)
    if os.path.exists(path):
        return path
    if path.name == os.fspath(name_or_path) and (found := named_bundle(path.name)) is not None:
        return found
    looked = " and ".join(map(str, _places()))
    known = ", ".join(sorted(folder.name for folder in _OWN.glob("chexworld_*")))
    remedy = f"give a folder, zip or weights, or one of {known}"
    raise BundleError(path, f"no such file, and no bundle of this name in {looked}", remedy)


def extract_bundle(archive: str | PathLike[str], folder: str | PathLike[str]) -> Path:
    """Unpack a packaged bundle; nothing is written outside ``folder`` or over what is there.

    Args:
        archive: the zip: one top-level folder, named as the bundle, with ``configs/metadata.json`` in it.
        folder: where that folder is made.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: not a zip or damaged; a name in it that leads out of its folder, or a link; no bundle; too large;
            or the bundle's folder exists.
    """
    archive = Path(archive)
    try:
        with opened_zip(archive) as content:
            members = checked_members(content, _MOST_BYTES)
            name = _checked_name(archive, members)
            target = Path(folder) / name
            if os.path.lexists(target):
                raise BundleError(target, "exists already", "remove it, or unpack elsewhere")
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as temporary:
                for member in members:
                    unpack_member(content, member, temporary)
                os.replace(Path(temporary) / name, target)
    except DamagedZipError as error:
        raise BundleError(archive, f"not a whole zip ({error})", _OTHER) from error
    except MemberError as error:
        raise BundleError(archive, str(error), "don't use this file") from error
    return target


def _checked_name(archive: Path, members: list[zipfile.ZipInfo]) -> str:
    """The one top-level folder of a zip."""
    outside = [member.filename for member in members if "/" not in member.filename]
    if outside:
        raise BundleError(archive, f"holds {outside[0]!r}, outside a bundle's folder", "don't use this file")
    tops = {member.filename.partition("/")[0] for member in members}
    names = {member.filename for member in members}
    if len(tops) != 1 or f"{next(iter(tops))}/configs/metadata.json" not in names:
        raise BundleError(archive, "not one bundle (NAME/configs/metadata.json)", _OTHER)
    return tops.pop()


@contextmanager
def open_bundle(name_or_path: str | PathLike[str]) -> Iterator[Path]:
    """A bundle's folder, or a file of weights; a zip is unpacked for as long as the context lasts.

    Raises:
        BundleError: see :func:`find_bundle` and :func:`extract_bundle`.
    """
    path = find_bundle(name_or_path)
    if path.is_dir() or path.suffix != ".zip":
        yield path
        return
    with TemporaryDirectory() as folder:
        yield extract_bundle(path, folder)


def main(argv: list[str] | None = None) -> int:
    """Print a bundle's folder; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cxw_monai.weights.bundles", description="Prints a bundle's folder."
    )
    parser.add_argument("name", help="of a bundle, such as chexworld_segmentation")
    try:
        print(find_bundle(parser.parse_args(argv).name).resolve())
    except BundleError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
