"""Bundles as others take them: TorchScript, ONNX, verified zips, Hugging Face folders."""

from .build import package_bundle
from .hugging_face import hugging_face_folder
from .verify import verify_package

__all__ = ["hugging_face_folder", "package_bundle", "verify_package"]
