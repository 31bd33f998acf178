"""The one way of a film through a network: prepared, computed, checked, and brought back to the film's own grid.

The bundles' inference, the Python API, MONAI Label, pseudo-labels and descriptors all use it, so that their answers are
the same bits. Films go through the network one at a time: no answer depends on which films are beside it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer
from monai.transforms import Activationsd
from scipy import ndimage
from torch import Tensor, nn
from typing_extensions import Self

from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.io.structures import is_one_part
from cxw_monai.quality.expected_dice import doubted, expected_dice
from cxw_monai.quality.review import checked_choice, film_doubts, review
from cxw_monai.training.precision import autocast, checked_amp
from cxw_monai.transforms.whole_film import WholeFilmd
from cxw_monai.weights.files import finite_outputs
from cxw_monai.weights.task_settings import CHEST

from .augmented import AugmentedInferer

__all__ = [
    "OneByOneInferer",
    "Predictor",
    "Segmented",
    "doubts_of",
    "film_inferer",
    "kept_to_largest",
    "on_device",
    "restore_masks",
    "review_film",
]

_OVERLAP, _WINDOWS = 0.25, 4  # of neighbouring windows; windows in one forward pass

Network = TypeVar("Network", bound=nn.Module)
Transform = Callable[[dict[str, Any]], Mapping[Any, Any]]
"""What takes a dictionary to one, such as MONAI's."""


class Segmented(NamedTuple):
    """A film's masks and what is thought of them.

    Attributes:
        masks: bool `[S, *source_shape]` on the grid that the file stores.
        doubts: what speaks against them, in words.
        expected_dice: float64 `[S]`, the Dice that the network's own probabilities expect
            (`cxw_monai.quality.expected_dice`); NaN where a mask is empty.
    """

    masks: np.ndarray
    doubts: list[str]
    expected_dice: np.ndarray


class Predictor:
    """A network, and what films need before and after it.

    Args:
        network: takes `[B, 1, h, w]` in [0, 1] to logits `[B, S, h, w]` or embeddings `[B, D]`, in evaluation mode.
        preprocessing: takes `{"image": float32 [1, H, W] in [0, 1]}` to the image as the network takes it; or the size
            (h, w) in px that whole films are stretched to.
        device: where the network is.
        structures: S names of the network's channels, where it segments.
        amp: `auto` (bfloat16 where the device computes it faster), `bfloat16` or `none` (float32).
        inferer: takes an image through the network; by default the whole image.
        postprocessing: takes `{"pred": logits [S, h, w]}` to probabilities; by default a sigmoid.
        source: the network's file, for messages.

    Raises:
        ValueError: another `amp`.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Transform | tuple[int, int],
        device: str | torch.device = "cpu",
        structures: Sequence[str] = (),
        *,
        amp: str = "none",
        inferer: Inferer | None = None,
        postprocessing: Transform | None = None,
        source: str | PathLike[str] = "the model",
    ) -> None:
        self.network, self.device, self.structures = network, torch.device(device), tuple(structures)
        self.preprocessing: Transform = (
            preprocessing if callable(preprocessing) else cast(Transform, WholeFilmd(preprocessing))
        )
        self.inferer = inferer or SimpleInferer()
        self.postprocessing: Transform = postprocessing or cast(Transform, Activationsd("pred", sigmoid=True))
        self.amp, self.source = checked_amp(amp), Path(source)

    def augmented(self) -> Self:
        """The same with test-time augmentation (`cxw_monai.inference.augmented`).

        Raises:
            ValueError: a structure has a side, and its counterpart is missing.
        """
        averaging = copy.copy(self)
        averaging.inferer = AugmentedInferer(self.inferer, self.structures)
        return averaging

    def prepare(self, array: np.ndarray) -> Tensor:
        """A film `[1, H, W]` in [0, 1], bone bright, as the network takes it: float32 `[1, h, w]` on the CPU."""
        return torch.as_tensor(np.asarray(self.preprocessing({"image": array})["image"]), dtype=torch.float32)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The precision that the network computes in."""
        return autocast(self.device, self.amp)

    def output(self, array: np.ndarray) -> Tensor:
        """The network's answer to one film, float32, without the axis of the batch.

        Raises:
            CheckpointError: it holds values that are no numbers.
        """
        image = self.prepare(array)[None].to(self.device)
        with torch.inference_mode(), self.precision():
            answer: Tensor = self.inferer(image, self.network)[0]
        return finite_outputs(answer, self.source).float()

    def probabilities(self, array: np.ndarray) -> np.ndarray:
        """Probabilities of one film's structures, float32 `[S, h, w]` at the network's size, or the film's in windows.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            ValueError: the network's channels aren't the structures.
        """
        logits = self.output(array)  # [S, h, w]
        if len(logits) != len(self.structures):
            raise ValueError(f"the network has {len(logits)} channels for {len(self.structures)} structures")
        with torch.inference_mode():
            found = torch.as_tensor(self.postprocessing({"pred": logits})["pred"])
        return np.asarray(found.cpu(), dtype=np.float32)

    def embedding(self, array: np.ndarray) -> np.ndarray:
        """Embedding of one film, float32 `[D]`."""
        return self.output(array).cpu().numpy()

    def on_film(self, film: Radiograph) -> np.ndarray:
        """Probabilities on the grid that the film's file stores, float32 `[S, *source_shape]`."""
        found = self.probabilities(film.array)
        return film.meta["pixel_map"].resize(*found.shape[1:]).restore(found, "linear")

    def masks(
        self, film: Radiograph, threshold: float = 0.5, keep_largest: bool | str | Sequence[str] = "auto"
    ) -> np.ndarray:
        """Masks on the grid that the film's file stores, bool `[S, *source_shape]`; see `segment` for the arguments."""
        kept = kept_to_largest(keep_largest, self.structures)
        found = self.probabilities(film.array)
        return restore_masks(found, film.meta["pixel_map"].resize(*found.shape[1:]), threshold, kept)

    def segment(
        self,
        film: Radiograph,
        threshold: float = 0.5,
        keep_largest: bool | str | Sequence[str] = "auto",
        on_implausible: str = "flag",
    ) -> Segmented:
        """Masks of one film, and what speaks against them.

        Args:
            film: as `read_radiograph` gives it.
            threshold, keep_largest: see `cxw_monai.inference.settings.SegmentSettings`.
            on_implausible: `keep` doesn't look, `flag` gives the reasons, `skip` raises where there are some.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the masks are implausible and to be skipped.
            ValueError: an argument is wrong.
        """
        checked_choice(on_implausible)
        kept = kept_to_largest(keep_largest, self.structures)
        found = self.probabilities(film.array)
        expected = expected_dice(found, threshold)
        masks = restore_masks(found, film.meta["pixel_map"].resize(*found.shape[1:]), threshold, kept)
        if on_implausible == "keep":
            return Segmented(masks, [], expected)
        doubts = review_film(film, dict(zip(self.structures, masks, strict=True)))
        doubts += doubted(dict(zip(self.structures, expected.tolist(), strict=True)))
        return Segmented(masks, _unless_skipped(film, doubts, on_implausible), expected)


def doubts_of(film: Radiograph, on_implausible: str, anatomy: str = CHEST) -> list[str]:
    """What speaks against a film as an upright frontal chest film, in words; nothing of films of another anatomy.

    Args:
        film: as `read_radiograph` gives it.
        on_implausible: `keep` doesn't look, `flag` gives the reasons, `skip` raises where there are some.
        anatomy: what the model's films show.

    Raises:
        RadiographError: the film is to be skipped.
        ValueError: another choice.
    """
    checked_choice(on_implausible)
    if on_implausible == "keep" or anatomy != CHEST:
        return []
    return _unless_skipped(film, film_doubts(film.array), on_implausible)


def _unless_skipped(film: Radiograph, doubts: list[str], on_implausible: str) -> list[str]:
    if doubts and on_implausible == "skip":
        remedy = "look at it; on_implausible 'flag' gives its results with a mark"
        raise RadiographError(film.meta.get("path", "a film"), f"implausible: {'; '.join(doubts)}", remedy)
    return doubts


def review_film(film: Radiograph, masks: Mapping[str, np.ndarray]) -> list[str]:
    """What speaks against the masks of a film, in words; see `cxw_monai.quality.review.review`.

    Args:
        film: as `read_radiograph` gives it.
        masks: bool `[*source_shape]` by structure, on the stored grid.
    """
    upright = {name: film.meta["pixel_map"].turn(mask) for name, mask in masks.items()}
    same = all(mask.shape == film.array.shape[1:] for mask in upright.values())
    return review(film.array, upright, film.meta["spacing_mm"] if same else None)


def kept_to_largest(choice: bool | str | Sequence[str], structures: Sequence[str]) -> list[bool]:
    """Whether only the largest part is kept of each structure, by the setting `keep_largest` (`SegmentSettings`).

    Raises:
        ValueError: it names a structure that isn't there.
    """
    if choice == "auto":
        return [is_one_part(name) for name in structures]
    if isinstance(choice, bool):
        return [choice] * len(structures)
    if unknown := sorted(set(choice) - set(structures)):
        raise ValueError(f"keep_largest: {unknown} not among the model's {list(structures)}")
    return [name in choice for name in structures]


def restore_masks(
    probabilities: np.ndarray, pixel_map: PixelMap, threshold: float, keep_largest: Sequence[bool]
) -> np.ndarray:
    """Masks on the stored grid.

    Args:
        probabilities: floating `[S, h, w]` on the map's array.
        pixel_map: from the stored grid to that array; a resize is undone linearly.
        threshold: a pixel is inside from this probability on.
        keep_largest: S times whether only the largest connected part is kept (pixels that touch at a corner are
            connected).

    Returns:
        bool `[S, *source_shape]`; where the array doesn't cover the stored grid, nothing is inside.
    """
    masks = np.empty((len(probabilities), *pixel_map.source_shape), dtype=bool)
    for values, largest, mask in zip(probabilities, keep_largest, masks, strict=True):  # one at a time spares memory
        mask[:] = pixel_map.restore(values, "linear") >= threshold
        if largest:
            parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
            if count > 1:
                mask[:] = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return masks


def film_inferer(
    sliding_window: int | None = None, patch_size: int = 16, augmented: Sequence[str] | None = None
) -> Inferer:
    """What takes a film `[1, 1, H, W]` through the network: whole, or in windows that overlap by a quarter.

    Args:
        sliding_window: side of the windows in px; None for the whole film.
        patch_size: the network's, which a window must have at least.
        augmented: the network's structures, for test-time augmentation (`cxw_monai.inference.augmented`).

    Raises:
        ValueError: the windows are smaller than a patch, or a structure's counterpart on the other side is missing.
    """
    if augmented is not None:
        return AugmentedInferer(film_inferer(sliding_window, patch_size), augmented)
    if sliding_window is None:
        return SimpleInferer()
    if isinstance(sliding_window, bool) or not isinstance(sliding_window, int) or sliding_window < patch_size:
        raise ValueError(f"sliding_window must be a number of px of at least {patch_size}, got {sliding_window!r}")
    return SlidingWindowInferer(
        (sliding_window, sliding_window), _WINDOWS, overlap=_OVERLAP, mode="gaussian", padding_mode="replicate"
    )


class OneByOneInferer(Inferer):
    """Takes the films of a batch through the network one after the other, so that none depends on its neighbours."""

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """`[B, 1, h, w]` to the network's answers `[B, ...]`."""
        return torch.cat([network(film, *args, **kwargs) for film in inputs.split(1)])


def on_device(network: Network, device: str | torch.device) -> Network:
    """The network on a device, in evaluation mode.

    Raises:
        ValueError: torch can't use the device.
    """
    try:
        return network.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} can't be used ({reason}); give --device cpu") from None
