"""A bundle's model in three lines of Python.

::

    model = cxw_monai.load("chexworld_segmentation")
    masks = model.segment("film.dcm")               # {"lung_left": bool [H, W], ...} on the film's own grid

    encoder = cxw_monai.load("RUN/encoder.pt")
    vector = encoder.embed("film.dcm")              # float32 [D]
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxw_monai.io import Radiograph, read_radiograph
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.networks import RadiographEmbedder, RadiographSegmenter, WholeFilmNetwork
from cxw_monai.quality.review import ImplausibleWarning
from cxw_monai.weights.kinds import load_network

from .predictor import Predictor, on_device, review_film

__all__ = ["EmbeddingModel", "SegmentationModel", "load"]

Film = str | PathLike[str] | np.ndarray | Tensor


def _read(film: Film) -> Radiograph:
    """A film that was read, or an array as one.

    Raises:
        ValueError: an array of another shape, type or range.
        RadiographError: a file that can't be used as a film.
    """
    if isinstance(film, (str, PathLike)):
        return read_radiograph(film)
    array = np.asarray(film)
    if array.ndim == 2:
        array = array[None]
    wanted = "[H, W] or [1, H, W], bone bright: uint8, uint16, or floating in [0, 1]"
    if array.ndim != 3 or array.shape[0] != 1 or min(array.shape) < 1:
        raise ValueError(f"a film's array must be {wanted}; got shape {np.shape(film)}")
    if array.dtype in (np.uint8, np.uint16):
        array = array.astype(np.float32) * np.float32(1 / np.iinfo(array.dtype).max)
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"a film's array must be {wanted}; got {array.dtype} from {array.min()} to {array.max()}")
    return Radiograph(array.astype(np.float32), {"pixel_map": PixelMap.identity(array.shape[1:]), "spacing_mm": None})


class SegmentationModel:
    """A segmenter and what its films need before and after it: the answers of the bundle's own inference.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to logits `[B, S, h, w]`.
        structures: S names.
        image_size: (h, w) in px that films are stretched to.
        predictor: takes films through the network.
        weights: the file, for messages.
    """

    def __init__(
        self,
        network: RadiographSegmenter,
        image_size: tuple[int, int],
        device: torch.device,
        weights: str | PathLike[str] = "the model",
        amp: str = "auto",
    ) -> None:
        self.network, self.image_size, self.structures = network, image_size, network.structures
        self.device, self.weights = device, weights
        self.predictor = Predictor(network, image_size, device, network.structures, amp=amp, source=weights)

    def __getattr__(self, name: str) -> Any:
        raise _other_kind(self, name, "load an encoder, such as chexworld_pretraining")

    def probabilities(self, film: Film) -> dict[str, np.ndarray]:
        """Each structure's probability, float32 `[H, W]` on the film's own grid; arguments as for `segment`."""
        return dict(zip(self.structures, self.predictor.on_film(_read(film)), strict=True))

    def segment(
        self,
        film: Film,
        threshold: float = 0.5,
        keep_largest: bool | str | Sequence[str] = "auto",
        on_implausible: str = "flag",
    ) -> dict[str, np.ndarray]:
        """Masks of one film.

        Args:
            film: a file that `read_radiograph` takes, or an array `[H, W]` or `[1, H, W]`, bone bright: uint8, uint16,
                or floating in [0, 1].
            threshold: a pixel is inside from this probability on.
            keep_largest: structures of which only the largest connected part is kept; True for all, ``"auto"`` for
                single organs.
            on_implausible: what is done where the film is no upright frontal chest, or the masks can't be its organs
                (`review` says why): `flag` warns (`cxw_monai.quality.ImplausibleWarning`), `skip` raises, `keep`
                doesn't look.

        Returns:
            bool `[H, W]` by structure, on the pixel grid that the file stores.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the file can't be used as a film, or is implausible and to be skipped.
            ValueError: an argument is wrong.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}")
        radiograph = _read(film)
        masks, doubts = self.predictor.segment(radiograph, threshold, keep_largest, on_implausible)
        if doubts:
            name = radiograph.meta.get("path", "a film")
            warnings.warn(f"{name}: implausible, look at it: {'; '.join(doubts)}", ImplausibleWarning, stacklevel=2)
        return dict(zip(self.structures, masks, strict=True))

    def review(self, film: Film, masks: Mapping[str, np.ndarray]) -> list[str]:
        """What speaks against masks of a film, in words; nothing where they may be right.

        Args:
            film: as for `segment`.
            masks: bool `[H, W]` by structure, as `segment` gives them.
        """
        return review_film(_read(film), masks)

    def film_model(self) -> WholeFilmNetwork:
        """Preparation, network and what follows as one module."""
        return WholeFilmNetwork(self.network, self.image_size, dense=True).eval()


class EmbeddingModel:
    """An encoder and what its films need before it: the answers of the bundle's own inference.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to `[B, D]`.
        image_size: (h, w) in px that films are stretched to, that of pretraining.
        predictor: takes films through the network, in float32.
        weights: the file, for messages.
    """

    def __init__(
        self, network: RadiographEmbedder, device: torch.device, weights: str | PathLike[str] = "the model"
    ) -> None:
        self.network, self.device, self.weights = network, device, weights
        rows, columns = network.encoder.grid
        self.image_size = rows * network.encoder.patch_size, columns * network.encoder.patch_size
        self.predictor = Predictor(network, self.image_size, device, source=weights)

    def __getattr__(self, name: str) -> Any:
        raise _other_kind(self, name, "load a segmenter, such as chexworld_segmentation")

    def embed(self, film: Film) -> np.ndarray:
        """Embedding of one film, the mean of its tokens.

        Args:
            film: as for `SegmentationModel.segment`.

        Returns:
            float32 `[D]`.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the file can't be used as a film.
            ValueError: the array is none.
        """
        return self.predictor.embedding(_read(film).array)

    def film_model(self) -> WholeFilmNetwork:
        """Preparation and network as one module."""
        return WholeFilmNetwork(self.network, self.image_size, dense=False).eval()


def _other_kind(model: SegmentationModel | EmbeddingModel, name: str, remedy: str) -> AttributeError:
    """For an attribute that a model lacks; where the other kind of model has it, the message says so."""
    kind, other = (
        ("an encoder", SegmentationModel) if isinstance(model, EmbeddingModel) else ("a segmenter", EmbeddingModel)
    )
    if not hasattr(other, name):
        return AttributeError(f"{type(model).__name__!r} object has no attribute {name!r}")
    return AttributeError(f"{model.weights} is {kind}, which has no {name!r}; {remedy}")


def load(
    name_or_path: str | PathLike[str], device: str | torch.device = "cpu", amp: str = "auto"
) -> SegmentationModel | EmbeddingModel:
    """The model of a bundle, ready for films.

    Args:
        name_or_path: a bundle's name (`chexworld_segmentation`), its folder, a zip of `scripts/package_bundle.py`, or
            a file of weights (`model.pt`, `encoder.pt`, `.safetensors`) of a run.
        device: where the network computes.
        amp: precision of a segmenter, as for the bundle's inference: `auto` (bfloat16 where the device computes it
            faster, which moves single pixels at edges), `bfloat16`, or `none` (float32). Encoders compute in float32.

    Returns:
        A `SegmentationModel` or an `EmbeddingModel`, whichever the weights are of. Nothing is unpickled, and no config
        is executed.

    Raises:
        BundleError: there is no such bundle, or its zip is none.
        CheckpointError: the weights are missing, damaged or no such model.
    """
    loaded = load_network(name_or_path)
    network, path = loaded.network, loaded.path
    if isinstance(network, RadiographSegmenter):
        size = loaded.settings.image_size
        return SegmentationModel(on_device(network, device), size, torch.device(device), path, amp)
    assert isinstance(network, RadiographEmbedder)
    return EmbeddingModel(on_device(network, device), torch.device(device), path)
