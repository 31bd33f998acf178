"""What is in a packaged bundle, and the zip that holds it.

::

    NAME/configs/ docs/ LICENSE      the bundle's own
    NAME/models/model.pt             weights
    NAME/models/model.ts, model.onnx the model by itself, from a film to its answer
    NAME/sbom.json                   software bill of materials
    NAME/SHA256SUMS                  of all other files, for `sha256sum -c`
"""

from __future__ import annotations

import json
import shutil
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

from cxw_monai.inference.api import load
from cxw_monai.inference.settings import model_hash
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.weights.bundles import BundleError
from cxw_monai.weights.files import CheckpointError
from cxw_monai.weights.kinds import weights_file

from .export import export_onnx, export_torchscript
from .fitting import fit_bundle

__all__ = ["SUMS", "file_hashes", "read_metadata", "stage_bundle", "write_sums", "write_zip"]

SUMS = "SHA256SUMS"
_TAKEN = ("LICENSE", "configs", "docs", "large_files.yml")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest in a zip


def read_metadata(bundle: Path) -> dict[str, Any]:
    """A bundle's `configs/metadata.json`.

    Raises:
        BundleError: it is missing or not JSON, or lacks the version.
    """
    path = bundle / "configs" / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["version"], metadata["description"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(path, f"not a bundle's metadata ({error!r})", "give a bundle's folder") from error
    return metadata


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, but `SHA256SUMS` itself, by its path with slashes, sorted."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: model_hash(folder / name) for name in files if name != SUMS}


def stage_bundle(bundle: Path, folder: Path, ckpt: str | PathLike[str] | None = None) -> Path:
    """Lay out a bundle's files as they are packaged.

    Args:
        bundle: the bundle's folder.
        folder: where its folder is made, under the same name.
        ckpt: weights to take instead of the bundle's `models/model.pt`. An encoder's sizes are written into the
            configs, so that inference and metadata are of these weights.

    Returns:
        The new folder.

    Raises:
        BundleError, CheckpointError: the bundle or the weights aren't what they should be.
    """
    bundle = bundle.resolve()
    read_metadata(bundle)
    weights = weights_file(ckpt) if ckpt else bundle / "models" / "model.pt"
    if not weights.is_file():
        raise CheckpointError(weights, "no weights", "give those of a run: --ckpt RUN/encoder.pt or RUN/model.pt")
    target = folder / bundle.name
    target.mkdir(parents=True)
    for name in _TAKEN:
        if (bundle / name).is_dir():
            shutil.copytree(bundle / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif (bundle / name).is_file():
            shutil.copy(bundle / name, target / name)
    (target / "models").mkdir()
    shutil.copy(weights, target / "models" / "model.pt")
    fit_bundle(target)
    model = load(target)
    metadata = read_metadata(target)
    export_torchscript(model.film_model(), target / "models" / "model.ts", metadata)
    export_onnx(model.film_model(), target / "models" / "model.onnx", metadata)
    from .sbom import bill_of_materials  # only here: it needs the extra `packaging`

    (target / "sbom.json").write_text(bill_of_materials(metadata, target.name, file_hashes(target)), encoding="utf-8")
    write_sums(target)
    return target


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` of a folder's files."""
    sums = "".join(f"{digest}  {name}\n" for name, digest in file_hashes(folder).items())
    (folder / SUMS).write_text(sums, encoding="utf-8")


def write_zip(folder: Path, path: Path) -> None:
    """Zip a folder under its own name; the same files give the same bytes, whenever and wherever they are zipped."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with atomic_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for file in files:
            member = zipfile.ZipInfo(file.relative_to(folder.parent).as_posix(), _EPOCH)
            member.external_attr = 0o644 << 16
            member.create_system = 3  # wherever it is made
            weights = file.parent.name == "models"  # hardly compressible
            member.compress_type = zipfile.ZIP_STORED if weights else zipfile.ZIP_DEFLATED
            archive.writestr(member, file.read_bytes())
