"""One way in and out: a file of weights is opened once, shows its kind, and gives tensors, settings and the network.

A task's file is `torch.save` of `{"model": state dict, "settings": {...}}`, tensors and plain values only. Of a
`.safetensors` the settings are in `config.json` beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.networks import RadiographEmbedder

from .bundles import open_bundle
from .classifier_settings import ClassifierSettings
from .encoder_settings import EncoderSettings, encoder_tensors, read_off, with_normalisation
from .files import CheckpointError, build, one_line, read_content, state_dict_of
from .landmarker_settings import LandmarkerSettings
from .segmenter_settings import SegmenterSettings
from .task_settings import checked_image_size

__all__ = [
    "TASKS",
    "LoadedNetwork",
    "Source",
    "Weights",
    "load_network",
    "named_weights",
    "read_weights",
    "save_network",
    "weights_file",
]


class TaskSettings(Protocol):
    """A dataclass of plain values, checked when it is made."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px that films are stretched to."""

    def network(self) -> nn.Module:
        """The network with fresh weights."""


TASKS: dict[str, type[TaskSettings]] = {
    "segmentation": SegmenterSettings,
    "classification": ClassifierSettings,
    "landmarks": LandmarkerSettings,
}
"""Kinds of files beside encoders, and what their settings are; a new task is a line here."""

_PRETRAINING = {"encoder", "target_encoder", "predictor"}


@dataclass(frozen=True)
class Weights:
    """A file of weights that has been read; its tensors are checked when they are first asked for.

    Attributes:
        path: the file.
        content: what is in it: tensors and plain values.
        bundle: folder of the bundle that the file is of.
    """

    path: Path
    content: Mapping[str, Any] = field(repr=False)
    bundle: Path | None = None

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """Its tensors, each finite and of a floating type.

        Raises:
            CheckpointError: they aren't.
        """
        return with_normalisation(state_dict_of(self.content, self.path))

    @cached_property
    def _plain_settings(self) -> Any:
        """Settings as the file or the `config.json` beside it states them; None for an encoder and a world model."""
        if self.path.suffix != ".safetensors":
            return self.content.get("settings")
        parts = {str(name).removeprefix("module.").partition(".")[0] for name in self.content}
        config = self.path.parent / "config.json"
        if "encoder" not in parts or parts <= _PRETRAINING:
            return None
        if not config.is_file():
            return {}
        try:
            return json.loads(config.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(config, f"no readable settings ({one_line(error)})", "fetch it again") from error

    @cached_property
    def kind(self) -> str:
        """`encoder` (alone or within a world model), one of `TASKS`, or `unknown`."""
        plain = self._plain_settings
        if plain is None and "settings" not in self.content:
            return "encoder"
        names = set(plain) if isinstance(plain, Mapping) else set()
        return next((kind for kind, task in TASKS.items() if _are_of(names, task)), "unknown")

    def expect(self, *kinds: str) -> Weights:
        """These weights, which must be of one of these kinds; raises `CheckpointError`."""
        if self.kind not in kinds:
            names = " or ".join(kinds)
            reason = f"not a {names} model of this package"
            raise CheckpointError(self.path, reason, f"give model.pt of a {names} run")
        return self

    @cached_property
    def settings(self) -> EncoderSettings | TaskSettings:
        """What defines the network: an encoder's are read off its tensors.

        Raises:
            CheckpointError: they are of no network.
        """
        if self.kind == "encoder":
            return self.encoder_settings()
        task = TASKS[self.expect(*TASKS).kind]
        plain: dict[str, Any] = self._plain_settings
        values = {name: tuple(one) if isinstance(one, list) else one for name, one in plain.items()}
        try:
            return task(**values)
        except ValueError as error:
            reason = f"settings of no network: {str(error).rstrip('.')}"
            raise CheckpointError(self.path, reason, f"give model.pt of a {self.kind} run") from error

    def encoder(self, weights: str = "target") -> dict[str, Tensor]:
        """Tensors of the encoder in the file, whatever its kind; see `encoder_tensors`."""
        return encoder_tensors(self.state, self.path, weights)

    def encoder_settings(self, weights: str = "target", image_size: tuple[int, int] | None = None) -> EncoderSettings:
        """What defines the encoder in the file; by default `image_size` is the bundle's, or 224 px (see `read_off`)."""
        return read_off(self.encoder(weights), self.path, image_size or _image_size(self.bundle))

    def embedder(self, settings: EncoderSettings) -> RadiographEmbedder:
        """The encoder in the file with its tokens' mean, in evaluation mode on the CPU."""
        return RadiographEmbedder(build(settings.network, self.encoder(), self.path)).eval()

    def network(self) -> nn.Module:
        """The network, an encoder's as `RadiographEmbedder`, in evaluation mode on the CPU.

        Raises:
            CheckpointError: the file is none, or its tensors don't fit its settings.
        """
        if isinstance(settings := self.settings, EncoderSettings):
            return self.embedder(settings)
        return build(settings.network, self.state, self.path)


Source = str | PathLike[str] | Weights
"""A file or folder of weights, or one that has been read."""


class LoadedNetwork(NamedTuple):
    """A network in evaluation mode on the CPU, and what its file says about it."""

    kind: str
    network: nn.Module
    settings: EncoderSettings | TaskSettings
    path: Path


def weights_file(path: str | PathLike[str]) -> Path:
    """`path` itself, or `model.pt`, `models/model.pt`, `encoder.pt` of a run's or bundle's folder.

    Raises:
        CheckpointError: a folder with none of them.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("model.pt", "models/model.pt", "encoder.pt"):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(path, "a folder without model.pt, models/model.pt or encoder.pt", "name the file")


def read_weights(path: Source) -> Weights:
    """Read a file of weights without executing anything from it.

    Args:
        path: a `.pt`, `.tar` or `.safetensors` file, the folder of a run or bundle, or what this function gave.

    Raises:
        CheckpointError: there is none, or it is broken or holds more than tensors and plain values.
    """
    if isinstance(path, Weights):
        return path
    file, place = weights_file(path), Path(path)
    return Weights(file, read_content(file), place if place.is_dir() else None)


def named_weights(bundle: Path, name: str) -> Path:
    """The file of a bundle's weights of this name, `models/NAME.pt`.

    Raises:
        CheckpointError: the bundle has none.
    """
    files = {path.stem: path for path in sorted((bundle / "models").glob("*.pt"))}
    if name not in files:
        have = ", ".join(files) or "none"
        raise CheckpointError(bundle / "models" / f"{name}.pt", "no such weights", f"name one of the bundle's: {have}")
    return files[name]


def load_network(name_or_path: str | PathLike[str], weights: str | None = None) -> LoadedNetwork:
    """The network of a bundle's name, folder or zip, of a run's folder, or of a file of weights.

    Args:
        name_or_path: see above.
        weights: which of a bundle's, see `named_weights`; None for its `model.pt`.

    Raises:
        BundleError: there is no such bundle, or its zip is none.
        CheckpointError: the weights are missing, damaged or of no network.
    """
    with open_bundle(name_or_path) as place:
        shown = Path(name_or_path) if place.is_dir() and os.path.isfile(name_or_path) else place  # a zip's own name
        try:
            read = read_weights(place if weights is None else named_weights(place, weights))
            path = shown / read.path.relative_to(place)
            return LoadedNetwork(read.kind, read.network(), read.settings, path)
        except CheckpointError as error:
            if shown == place:
                raise
            raise CheckpointError(shown / error.path.relative_to(place), error.reason, error.remedy) from error


def _image_size(bundle: Path | None) -> tuple[int, int]:
    """That of a bundle's inference, where there is one.

    Raises:
        CheckpointError: the bundle states none.
    """
    if bundle is None or not (config := bundle / "configs" / "inference.json").is_file():
        return 224, 224
    try:
        return checked_image_size(json.loads(config.read_text(encoding="utf-8"))["image_size"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            config, f"no readable image_size ({one_line(error)})", "give the file of weights"
        ) from error


def _are_of(names: set[str], task: type[TaskSettings]) -> bool:
    """Whether names are those of a task's settings; files from before `anatomy` lack it."""
    known = {one.name for one in fields(task)}
    return known - {"anatomy"} <= names <= known


def save_network(network: nn.Module, settings: TaskSettings, path: str | PathLike[str]) -> None:
    """Write a task's file, which `load_network` needs nothing else for."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    with atomic_file(path) as stream:
        torch.save({"model": state, "settings": plain}, stream)
