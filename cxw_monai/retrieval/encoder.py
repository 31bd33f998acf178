"""The encoder of an index: tokens of a film, and of a part of it."""

from __future__ import annotations

from os import PathLike
from typing import Any, cast

import numpy as np

from cxw_monai.inference.predictor import Predictor, on_device
from cxw_monai.inference.settings import model_hash
from cxw_monai.io import read_radiograph
from cxw_monai.io.read import reader_options
from cxw_monai.networks import RadiographEmbedder
from cxw_monai.weights.kinds import load_network

__all__ = ["FilmEncoder"]


class FilmEncoder:
    """Tokens of whole films; their mean is a film's vector, as `cxw_monai.load(...).embed` gives it.

    Args:
        ckpt: a bundle's name or folder, or a file of an encoder's weights.
        device: where it computes, in float32.

    Attributes:
        sha256: of the file of weights.
        grid: (rows, columns) of tokens.
        image_size: (height, width) in px that films are stretched to.
        width: D, numbers in a token.
        reader: how films are read, see `cxw_monai.io.read.reader_options`.

    Raises:
        BundleError, CheckpointError: there is none, or it can't be used.
        ValueError: the weights are of another kind of model.
    """

    def __init__(self, ckpt: str | PathLike[str], device: str = "cpu") -> None:
        loaded = load_network(ckpt)
        if loaded.kind != "encoder":
            raise ValueError(f"{loaded.path}: a {loaded.kind} model; give an encoder, such as chexworld_pretraining")
        encoder = on_device(cast(RadiographEmbedder, loaded.network).encoder, device)
        self.name, self.sha256 = str(ckpt), model_hash(loaded.path)
        self.grid: tuple[int, int] = (encoder.grid[0], encoder.grid[1])
        self.image_size = (self.grid[0] * encoder.patch_size, self.grid[1] * encoder.patch_size)
        self.width = encoder.embed_dim
        self.reader: dict[str, Any] = {**reader_options(), "min_size": encoder.patch_size}
        self._predictor = Predictor(encoder, self.image_size, device, source=loaded.path)

    def tokens(self, film: np.ndarray) -> np.ndarray:
        """Tokens of a film `[1, H, W]` in [0, 1]: float32 `[T, D]`, row by row.

        Raises:
            CheckpointError: they are no numbers.
        """
        return self._predictor.output(film).cpu().numpy()

    def read(self, path: str | PathLike[str]) -> np.ndarray:
        """Tokens of a film's file.

        Raises:
            RadiographError: it can't be read.
        """
        return self.tokens(read_radiograph(path, **self.reader).array)
