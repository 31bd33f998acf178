"""The segmentation model as the server uses it: read again when its file changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from cxw_monai.inference.predictor import Predictor, on_device
from cxw_monai.inference.settings import SegmentSettings, model_hash
from cxw_monai.io import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.radiograph import errors_of
from cxw_monai.networks.embedder import RadiographEmbedder
from cxw_monai.weights.segmenter import read_segmenter

__all__ = ["LabelModel", "film_file", "read_film"]


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


@dataclass
class _Loaded:
    """What one state of the model's file gave."""

    stamp: tuple[int, int]
    segmenter: Predictor
    embedder: Predictor
    sha256: str


class LabelModel:
    """A saved segmenter that segments, embeds and measures how unsure it is, one film after the other.

    The results are those of the bundle's inference with its default settings.

    Args:
        path: `model.pt` of a segmentation run. It may be replaced at any time; the next film sees the new one.
        device: where it computes.
    """

    def __init__(self, path: str | PathLike[str], device: str = "cpu") -> None:
        self.path, self.device = Path(path), device
        self._loaded: _Loaded | None = None

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the masks."""
        return self._current().segmenter.structures

    @property
    def stamp(self) -> tuple[int, int]:
        """What changes when the file is replaced."""
        status = self.path.stat()
        return status.st_mtime_ns, status.st_size

    @property
    def version(self) -> str:
        """The first 16 digits of the SHA-256 of the weights that are in use."""
        return self._current().sha256[:16]

    def _current(self) -> _Loaded:
        stamp = self.stamp
        if self._loaded is None or self._loaded.stamp != stamp:
            settings, network = read_segmenter(self.path)
            network, size = on_device(network, self.device), settings.image_size
            segmenter = Predictor(network, size, self.device, settings.structures, amp="auto", source=self.path)
            embedder = Predictor(RadiographEmbedder(network.encoder).eval(), size, self.device, source=self.path)
            self._loaded = _Loaded(stamp, segmenter, embedder, model_hash(self.path))
        return self._loaded

    def segment(self, film: Radiograph, settings: SegmentSettings) -> tuple[np.ndarray, list[str]]:
        """Masks on the film's stored grid, bool ``[S, *source_shape]``, and what speaks against them."""
        chosen = settings.threshold, settings.keep_largest, settings.on_implausible
        return self._current().segmenter.segment(film, *chosen)

    def masks(self, film: Radiograph, threshold: float = 0.5) -> np.ndarray:
        """Those of `segment` by default, but for the threshold."""
        return self._current().segmenter.masks(film, threshold)

    def probabilities(self, film: Radiograph) -> np.ndarray:
        """float32 ``[S, h, w]`` of the whole film at the network's size."""
        return self._current().segmenter.probabilities(film.array)

    def embedding(self, film: Radiograph) -> np.ndarray:
        """Mean token of the model's encoder, float32 ``[D]``."""
        return self._current().embedder.embedding(film.array)

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
