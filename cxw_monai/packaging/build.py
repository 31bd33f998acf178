"""From a bundle's folder to a verified package."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

from cxw_monai.inference.settings import model_hash
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.weights.bundles import BundleError

from .contents import read_metadata, stage_bundle, write_zip
from .verify import verify_package

__all__ = ["package_bundle"]


def package_bundle(
    bundle: str | PathLike[str], output_dir: str | PathLike[str], ckpt: str | PathLike[str] | None = None
) -> Path:
    """Write `NAME_vVERSION.zip` and `NAME_vVERSION.zip.sha256`, and verify what was written.

    Args:
        bundle: the bundle's folder; its configs are executed.
        output_dir: is made.
        ckpt: weights instead of the bundle's `models/model.pt`.

    Returns:
        The zip.

    Raises:
        BundleError, CheckpointError: the bundle or the weights aren't what they should be, or the package doesn't pass
            `verify_package`; it is then not left behind.
    """
    bundle, output_dir = Path(bundle), Path(output_dir)
    version = read_metadata(bundle)["version"]
    output_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output_dir, prefix=".packaging.") as folder:
        staged = stage_bundle(bundle, Path(folder), ckpt)
        archive = Path(folder) / f"{staged.name}_v{version}.zip"
        write_zip(staged, archive)
        if problems := verify_package(archive):
            raise BundleError(bundle, f"does not make a package: {'; '.join(problems)}", "fix these")
        target = output_dir / archive.name
        with atomic_file(f"{target}.sha256", "w") as stream:
            stream.write(f"{model_hash(archive)}  {target.name}\n")
        archive.replace(target)
    return target
