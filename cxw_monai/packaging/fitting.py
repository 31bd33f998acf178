"""A bundle's configs and metadata made to fit the weights that are packaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.weights.classifier_settings import ClassifierSettings
from cxw_monai.weights.kinds import Weights, read_weights
from cxw_monai.weights.landmarker_settings import LandmarkerSettings

__all__ = ["fit_bundle"]


def fit_bundle(bundle: Path) -> None:
    """Write into a staged bundle what its weights say: an encoder's sizes, classes, landmarks.

    Args:
        bundle: the folder, with `models/model.pt`; changed in its place.
    """
    weights = read_weights(bundle)
    if weights.kind in _FITS:
        inference, described = bundle / "configs" / "inference.json", bundle / "configs" / "metadata.json"
        config, metadata = (json.loads(file.read_text(encoding="utf-8")) for file in (inference, described))
        _FITS[weights.kind](weights, config, metadata)
        _write_json(inference, config)
        _write_json(described, metadata)


def _fit_encoder(weights: Weights, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Keep the target encoder alone, under the names of the inference network, and its sizes."""
    settings = weights.encoder_settings()
    network, (height, width), patch = weights.embedder(settings), settings.image_size, settings.patch_size
    with atomic_file(weights.path) as stream:
        torch.save(network.state_dict(), stream)
    config |= {"network_size": settings.size, "patch_size": patch, "in_channels": settings.in_channels}
    config["image_size"] = height if height == width else [height, width]
    formats = metadata["network_data_format"]
    formats["inputs"]["image"]["spatial_shape"] = [f"{patch}*n", f"{patch}*n"]
    formats["outputs"]["pred"]["num_channels"] = network.encoder.embed_dim
    metadata["exported_models"]["outputs"]["pred"]["shape"] = ["batch", network.encoder.embed_dim]


def _fit_classifier(weights: Weights, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    """The classes in the order of the outputs, the size of the input."""
    settings = cast(ClassifierSettings, weights.settings)
    height, width = settings.image_size
    formats = metadata["network_data_format"]
    formats["inputs"]["image"]["spatial_shape"] = [height, width]
    formats["outputs"]["pred"]["num_channels"] = len(settings.classes)
    formats["outputs"]["pred"]["channel_def"] = {str(n): name for n, name in enumerate(settings.classes)}
    exported = metadata["exported_models"]
    exported["outputs"]["pred"]["shape"] = ["batch", len(settings.classes)]
    exported["preprocessing"][-1] = _stretched(settings.image_size)


def _fit_landmarker(weights: Weights, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    """The landmarks in the order of the outputs, the size of the input."""
    settings = cast(LandmarkerSettings, weights.settings)
    pred = metadata["network_data_format"]["outputs"]["pred"]
    pred["num_channels"] = len(settings.points)
    pred["channel_def"] = {str(n): name for n, name in enumerate(settings.points)}
    exported = metadata["exported_models"]
    exported["outputs"]["pred"]["shape"] = ["batch", len(settings.points), 3]
    exported["preprocessing"][-1] = _stretched(settings.image_size)


def _stretched(size: tuple[int, int]) -> str:
    return (
        f"Inside: the film stretched to {size[0]} x {size[1]} px (bicubic, antialiased); values below 0 and above 1 "
        "cut off; the network's own normalisation."
    )


_FITS: dict[str, Callable[[Weights, dict[str, Any], dict[str, Any]], None]] = {
    "encoder": _fit_encoder,
    "classification": _fit_classifier,
    "landmarks": _fit_landmarker,
}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=4)
        stream.write("\n")
