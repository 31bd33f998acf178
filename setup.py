"""Puts the bundles into the wheel, as `cxw_monai/bundles`; everything else is in pyproject.toml.

In a checkout they lie beside the package, where MONAI's users look for them; an editable install finds them there.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WEIGHTS = ("model.pt", "shenzhen_tuberculosis.pt", "view_position.pt")  # no others that lie there
TAKEN = ("LICENSE", "large_files.yml", "configs", "docs", "models/README.md", *(f"models/{name}" for name in WEIGHTS))


class BuildWithBundles(build_py):
    """Copies what belongs to each bundle, and nothing that a run has left in its folder."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # what an earlier build left is no part of this one
        super().run()
        if not self.editable_mode:
            for metadata in sorted(Path("bundles").glob("*/configs/metadata.json")):
                self.copy_bundle(metadata.parents[1], Path(self.build_lib, "cxw_monai", "bundles"))

    @staticmethod
    def copy_bundle(bundle: Path, target: Path) -> None:
        for name in TAKEN:
            source = bundle / name
            files = [one for one in sorted(source.rglob("*")) if one.is_file()] if source.is_dir() else [source]
            for file in files:
                parts = file.relative_to(bundle).parts
                if not file.is_file() or any(part.startswith(".") or part == "__pycache__" for part in parts):
                    continue
                place = target / bundle.name / file.relative_to(bundle)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)


setup(cmdclass={"build_py": BuildWithBundles})
