"""What the models of all kinds have in common: a film in, an answer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from cxw_monai.io import Radiograph, read_radiograph
from cxw_monai.io.pixel_map import PixelMap
from cxw_monai.networks import WholeFilmNetwork
from cxw_monai.weights.kinds import LoadedNetwork

from .predictor import Predictor

__all__ = ["Film", "FilmModel", "Hub", "read_film"]

Film = str | PathLike[str] | np.ndarray | Tensor
"""A file that `read_radiograph` takes, or an array `[H, W]` or `[1, H, W]`, bone bright: uint8, uint16, or floating in
[0, 1]."""


class Hub(NamedTuple):
    """What the Hugging Face Hub is told about a kind of model.

    Attributes:
        model_type: in `config.json`.
        pipeline_tag: the Hub's word for the task.
        call: a line of Python that uses `model` on a film.
    """

    model_type: str
    pipeline_tag: str
    call: str


def read_film(film: Film) -> Radiograph:
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


class FilmModel(ABC):
    """A network and what its films need before and after it: the answers of its bundle's own inference.

    Attributes:
        image_size: (h, w) in px that films are stretched to.
        device: where it computes.
        weights: the file, for messages.
        predictor: takes films through the network.
    """

    KIND: ClassVar[str]
    """Kind of the file (`cxw_monai.weights.kinds`)."""
    NOUN: ClassVar[str]
    """What it is, for messages: `a segmenter`."""
    BUNDLE: ClassVar[str]
    """Bundle of this project with such a model."""
    HUB: ClassVar[Hub]
    STATE_KEY: ClassVar[str] = "model"
    """Entry of the file that holds the tensors; empty where the file is these."""

    image_size: tuple[int, int]
    device: torch.device
    weights: str | PathLike[str]
    predictor: Predictor

    def __getattr__(self, name: str) -> Any:
        """For an attribute that a model lacks: where another kind of model has it, the message says so."""
        other = next((kind for kind in FilmModel.__subclasses__() if hasattr(kind, name)), None)
        if other is None or name in FilmModel.__annotations__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        remedy = f"load {other.NOUN}, such as {other.BUNDLE}"
        raise AttributeError(f"{self.weights} is {self.NOUN}, which has no {name!r}; {remedy}")

    @classmethod
    @abstractmethod
    def of(cls, loaded: LoadedNetwork, device: str | torch.device, amp: str) -> Self:
        """The model of weights that were loaded."""

    @abstractmethod
    def answer(self, film: Film) -> np.ndarray:
        """The model's answer to a film as one float32 array: what `film_model` gives."""

    @abstractmethod
    def film_model(self) -> WholeFilmNetwork:
        """Preparation, network and what follows as one module, which takes `[B, 1, H, W]` in [0, 1]."""
