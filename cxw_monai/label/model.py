"""Models as the server uses them: read again when their file changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch

from cxw_monai.inference.api import ClassificationModel
from cxw_monai.inference.predictor import Predictor, Segmented, on_device
from cxw_monai.inference.settings import SegmentSettings, model_hash
from cxw_monai.io import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.radiograph import errors_of
from cxw_monai.networks.embedder import RadiographEmbedder
from cxw_monai.weights.classifier import read_classifier
from cxw_monai.weights.segmenter import read_segmenter

__all__ = ["LabelClassifier", "LabelModel", "WatchedFile", "film_file", "read_film"]


def film_file(path: str | PathLike[str]) -> str:
    """The one film of a path: the file itself, or the only file of a folder (a series from a DICOMweb server).

    Raises:
        RadiographError: no such file, or a folder of several files.
    """
    if not os.path.isdir(path):
        return os.fspath(path)
    files = sorted(name for name in os.listdir(path) if not name.startswith("."))
    if len(files) != 1:
        remedy = "give series of one film each" if files else "send the film again"
        raise RadiographError(path, f"a series of {len(files)} images, not of one film", remedy)
    return os.path.join(path, files[0])


def read_film(path: str | PathLike[str]) -> Radiograph:
    """Read a film of the server.

    Raises:
        RadiographError: it can't be used, whatever the damage provokes in a decoder.
    """
    file = film_file(path)
    with errors_of(file, "reading it failed ({})", "look at it by itself"):
        return read_radiograph(file)


Made = TypeVar("Made")


class WatchedFile(Generic[Made]):
    """What a file of weights gives; read again when the file is replaced, which may be at any time.

    Args:
        path: the file.
        read: makes something of it.
    """

    def __init__(self, path: str | PathLike[str], read: Callable[[Path], Made]) -> None:
        self.path, self._read = Path(path), read
        self._found: tuple[tuple[int, int], Made, str] | None = None

    @property
    def stamp(self) -> tuple[int, int]:
        """What changes when the file is replaced."""
        status = self.path.stat()
        return status.st_mtime_ns, status.st_size

    def _current(self) -> tuple[tuple[int, int], Made, str]:
        stamp = self.stamp
        if self._found is None or self._found[0] != stamp:
            self._found = stamp, self._read(self.path), model_hash(self.path)
        return self._found

    @property
    def content(self) -> Made:
        """What the file gives now."""
        return self._current()[1]

    @property
    def version(self) -> str:
        """The first 16 digits of the SHA-256 of the weights that are in use."""
        return self._current()[2][:16]


def _classification_model(path: Path, device: str) -> ClassificationModel:
    settings, network = read_classifier(path)
    return ClassificationModel(on_device(network, device), settings, torch.device(device), path)


class LabelClassifier(WatchedFile[ClassificationModel]):
    """A saved classifier, whose answers are those of the bundle's inference.

    Args:
        path: `model.pt` of a classification run.
        device: where it computes.
    """

    def __init__(self, path: str | PathLike[str], device: str = "cpu") -> None:
        super().__init__(path, partial(_classification_model, device=device))

    def classify(self, film: Radiograph, on_implausible: str) -> tuple[dict[str, float], list[str]]:
        """Probability of each class, and what speaks against the film as an upright frontal chest film."""
        return self.content.classified(film, on_implausible)


def _segmenter_and_embedder(path: Path, device: str) -> tuple[Predictor, Predictor]:
    settings, network = read_segmenter(path)
    network, size = on_device(network, device), settings.image_size
    segmenter = Predictor(network, size, device, settings.structures, amp="auto", source=path)
    return segmenter, Predictor(RadiographEmbedder(network.encoder).eval(), size, device, source=path)


class LabelModel(WatchedFile[tuple[Predictor, Predictor]]):
    """A saved segmenter that segments, embeds and measures how unsure it is, one film after the other.

    The results are those of the bundle's inference with its default settings.

    Args:
        path: `model.pt` of a segmentation run.
        device: where it computes.
    """

    def __init__(self, path: str | PathLike[str], device: str = "cpu") -> None:
        super().__init__(path, partial(_segmenter_and_embedder, device=device))

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the masks."""
        return self.content[0].structures

    def segment(self, film: Radiograph, settings: SegmentSettings) -> Segmented:
        """Masks on the film's stored grid, bool ``[S, *source_shape]``, and what speaks against them."""
        chosen = settings.threshold, settings.keep_largest, settings.on_implausible
        return self.content[0].segment(film, *chosen)

    def masks(self, film: Radiograph, threshold: float = 0.5) -> np.ndarray:
        """Those of `segment` by default, but for the threshold."""
        return self.content[0].masks(film, threshold)

    def probabilities(self, film: Radiograph) -> np.ndarray:
        """float32 ``[S, h, w]`` of the whole film at the network's size."""
        return self.content[0].probabilities(film.array)

    def embedding(self, film: Radiograph) -> np.ndarray:
        """Mean token of the model's encoder, float32 ``[D]``."""
        return self.content[1].embedding(film.array)

    def uncertainty(self, film: Radiograph) -> float:
        """Entropy in bits of the pixels' probabilities, over the area that the model draws.

        A mask's boundary is always a little unsure; the quotient is large where that is much of what is drawn, or where
        hardly anything is drawn. It is an order of films, no probability of an error.

        Returns:
            At least 0; infinite where nothing at all is drawn.
        """
        chance = np.clip(self.probabilities(film).astype(np.float64), 1e-6, 1 - 1e-6)
        bits = -(chance * np.log2(chance) + (1 - chance) * np.log2(1 - chance))
        drawn = np.count_nonzero(chance >= 0.5)
        return float(bits.sum() / drawn) if drawn else float("inf")
