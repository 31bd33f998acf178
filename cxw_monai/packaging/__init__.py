"""Bundles as others take them: TorchScript, ONNX, verified zips, Hugging Face folders."""
