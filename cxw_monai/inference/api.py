"""A bundle's model in three lines of Python.

::

    model = cxw_monai.load("chexworld_segmentation")
    masks = model.segment("film.dcm")               # {"lung_left": bool [H, W], ...} on the film's own grid

    encoder = cxw_monai.load("RUN/encoder.pt")
    vector = encoder.embed("film.dcm")              # float32 [D]
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cxw_monai.io import Radiograph, read_radiograph
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.networks import FilmModel, RadiographEmbedder, RadiographSegmenter
from cxw_monai.quality.review import ImplausibleWarning, checked_choice
from cxw_monai.transforms.warp import WholeFilmd
from cxw_monai.weights.bundles import open_bundle
from cxw_monai.weights.files import CheckpointError, finite_outputs, one_line, read_weights
from cxw_monai.weights.resolve import embedder_of, encoder_file
from cxw_monai.weights.segmenter import holds_segmenter, segmenter_of
from cxw_monai.weights.segmenter_settings import checked_image_size

from .implausible import doubts_of, review_film
from .run import kept_to_largest, restore_masks
from .settings import on_device

__all__ = ["EmbeddingModel", "SegmentationModel", "load"]

Film = str | PathLike[str] | np.ndarray | Tensor


def _film(film: Film) -> tuple[np.ndarray, PixelMap]:
    """Float32 `[1, H, W]` in [0, 1] and where its pixels lie on the stored grid; raises as `_radiograph`."""
    radiograph = _radiograph(film)
    return radiograph.array, radiograph.meta["pixel_map"]


def _radiograph(film: Film) -> Radiograph:
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
    """A segmenter and what its films need before and after it.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to logits `[B, S, h, w]`.
        structures: S names.
        image_size: (h, w) in px that films are stretched to.
        weights: the file, for messages.
    """

    def __init__(
        self,
        network: RadiographSegmenter,
        image_size: tuple[int, int],
        device: torch.device,
        weights: str | PathLike[str] = "the model",
    ) -> None:
        self.network, self.image_size, self.device, self.weights = network, image_size, device, weights
        self.structures = network.structures
        self._whole_film = WholeFilmd(image_size)

    @torch.inference_mode()
    def _probabilities(self, array: np.ndarray) -> np.ndarray:
        image = self._whole_film({"image": array})["image"][None].to(self.device)
        logits = finite_outputs(self.network(image), self.weights)
        return logits.sigmoid()[0].cpu().numpy()  # [S, h, w]

    def probabilities(self, film: Film) -> dict[str, np.ndarray]:
        """Each structure's probability, float32 `[H, W]` on the film's own grid; arguments as for `segment`."""
        array, pixel_map = _film(film)
        found = self._probabilities(array)
        restored = pixel_map.resize(*found.shape[1:]).restore(found, "linear")
        return dict(zip(self.structures, restored, strict=True))

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
        kept = kept_to_largest(keep_largest, self.structures)
        checked_choice(on_implausible)
        radiograph = _radiograph(film)
        found = self._probabilities(radiograph.array)
        seen = radiograph.meta["pixel_map"].resize(*found.shape[1:])
        masks = dict(zip(self.structures, restore_masks(found, seen, threshold, kept), strict=True))
        if doubts := doubts_of(radiograph, masks, on_implausible):
            name = radiograph.meta.get("path", "a film")
            warnings.warn(f"{name}: implausible, look at it: {'; '.join(doubts)}", ImplausibleWarning, stacklevel=2)
        return masks

    def review(self, film: Film, masks: Mapping[str, np.ndarray]) -> list[str]:
        """What speaks against masks of a film, in words; nothing where they may be right.

        Args:
            film: as for `segment`.
            masks: bool `[H, W]` by structure, as `segment` gives them.
        """
        return review_film(_radiograph(film), masks)

    def film_model(self) -> FilmModel:
        """Preparation, network and what follows as one module."""
        return FilmModel(self.network, self.image_size, dense=True).eval()


class EmbeddingModel:
    """An encoder and what its films need before it.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to `[B, D]`.
        image_size: (h, w) in px that films are stretched to, that of pretraining.
        weights: the file, for messages.
    """

    def __init__(
        self, network: RadiographEmbedder, device: torch.device, weights: str | PathLike[str] = "the model"
    ) -> None:
        self.network, self.device, self.weights = network, device, weights
        rows, columns = network.encoder.grid
        self.image_size = rows * network.encoder.patch_size, columns * network.encoder.patch_size
        self._whole_film = WholeFilmd(self.image_size)

    @torch.inference_mode()
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
        image = self._whole_film({"image": _film(film)[0]})["image"][None].to(self.device)
        return finite_outputs(self.network(image), self.weights)[0].cpu().numpy()

    def film_model(self) -> FilmModel:
        """Preparation and network as one module."""
        return FilmModel(self.network, self.image_size, dense=False).eval()


def load(name_or_path: str | PathLike[str], device: str | torch.device = "cpu") -> SegmentationModel | EmbeddingModel:
    """The model of a bundle, ready for films.

    Args:
        name_or_path: a bundle's name (`chexworld_segmentation`), its folder, a zip of `scripts/package_bundle.py`, or
            a file of weights (`model.pt`, `encoder.pt`, `.safetensors`) of a run.
        device: where the network computes.

    Returns:
        A `SegmentationModel` or an `EmbeddingModel`, whichever the weights are of. Nothing is unpickled, and no config
        is executed.

    Raises:
        BundleError: there is no such bundle, or its zip is none.
        CheckpointError: the weights are missing, damaged or no such model.
    """
    with open_bundle(name_or_path) as place:
        shown = Path(name_or_path) if place.is_dir() and os.path.isfile(name_or_path) else place  # a zip's own name
        try:
            return _loaded(place, shown, device)
        except CheckpointError as error:
            if shown == place:
                raise
            raise CheckpointError(shown / error.path.relative_to(place), error.reason, error.remedy) from error


def _loaded(place: Path, shown: Path, device: str | torch.device) -> SegmentationModel | EmbeddingModel:
    """The model of a bundle's folder or a file of weights, which messages call `shown`."""
    weights = encoder_file(place)
    content, shown = read_weights(weights), shown / weights.relative_to(place)
    if holds_segmenter(content, weights):
        settings, network = segmenter_of(content, weights)
        return SegmentationModel(on_device(network, device), settings.image_size, torch.device(device), shown)
    network = on_device(embedder_of(content, weights, _image_size(place)), device)
    return EmbeddingModel(network, torch.device(device), shown)


def _image_size(place: Path) -> tuple[int, int]:
    """That of a bundle's inference, where there is one.

    Raises:
        CheckpointError: the bundle tells none.
    """
    config = place / "configs" / "inference.json"
    if not config.is_file():
        return 224, 224
    try:
        return checked_image_size(json.loads(config.read_text(encoding="utf-8"))["image_size"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(config, f"tells no image_size ({one_line(error)})", "give the file of weights") from error
