"""One package of the segmentation bundle for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxw_monai.packaging import package_bundle
from cxw_monai.weights.bundles import extract_bundle

SEGMENTATION = Path(__file__).resolve().parents[2] / "bundles" / "chexworld_segmentation"


@pytest.fixture(scope="session")
def package(tmp_path_factory) -> Path:
    """The zip; making it verifies it."""
    for library in ("onnxruntime", "cyclonedx"):
        pytest.importorskip(library, reason="packages hold ONNX models and a bill: pip install 'cxw-monai[packaging]'")
    return package_bundle(SEGMENTATION, tmp_path_factory.mktemp("package"))


@pytest.fixture
def unpacked(package, tmp_path) -> Path:
    return extract_bundle(package, tmp_path)
