"""Segmentation networks in files: weights together with the plain values that rebuild the network.

A file is `torch.save` of `{"model": state dict, "settings": {...}}`, tensors and plain values only, so that it is read
without unpickling anything that could run. Of a `.safetensors` the settings stand in `config.json` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from .bundle_files import named_bundle
from .checkpoints import CheckpointError, read_weights, state_dict_of
from .io.atomic import atomic_file
from .networks import VIT_SIZES, RadiographSegmenter, radiograph_segmenter, resize_encoder

__all__ = [
    "SegmenterSettings",
    "load_segmenter",
    "new_segmenter",
    "read_settings",
    "save_segmenter",
    "segmenter_settings",
]

DEFAULT_SIZE = "small"
_PREFIXES = {"target": ("target_encoder.", "encoder.", ""), "context": ("encoder.", "")}
_OTHER = "give the model.pt or encoder.pt of a pretraining run of this package, or import the weights first"


@dataclass(frozen=True)
class SegmenterSettings:
    """What tells a `RadiographSegmenter`, in plain values.

    Attributes:
        structures: names in the order of the output's channels.
        image_size: (height, width) in px that films are stretched to.
        size: the encoder's, one of `VIT_SIZES`.
        patch_size: side of a patch in px.
        decoder: `unet`, `upernet` or `linear`.
        base_channels: width of the decoder.
        in_channels: channels of the encoder's stem.
        encoder_image_size: (height, width) in px of the encoder's pretraining, whose positions it knows.
        pretrained_patch: side in px of a patch in pretraining.
    """

    structures: tuple[str, ...]
    image_size: tuple[int, int]
    size: str
    patch_size: int
    decoder: str
    base_channels: int
    in_channels: int
    encoder_image_size: tuple[int, int]
    pretrained_patch: int

    def network(self, drop_path: float = 0.0, frozen_blocks: int = 0) -> RadiographSegmenter:
        """The network with fresh weights."""
        return radiograph_segmenter(
            size=self.size,
            patch=self.patch_size,
            structures=self.structures,
            decoder=self.decoder,
            base_channels=self.base_channels,
            image_size=self.encoder_image_size,
            in_channels=self.in_channels,
            drop_path=drop_path,
            frozen_blocks=frozen_blocks,
            pretrained_patch=self.pretrained_patch,
        )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def encoder_file(path: str | Path) -> Path:
    """The weights' file: `path` itself, or `encoder.pt`, `model.pt`, `models/model.pt` of a run's or bundle's folder.

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


def _chosen(encoder_ckpt: str | Path | None) -> Path | None:
    """The file of an encoder; None for fresh weights, which a command line asks for by `none`.

    A bundle's folder that isn't there is looked for by its name: a bundle that was fetched alone finds its neighbour.

    Raises:
        CheckpointError: there is no such file.
    """
    if encoder_ckpt is None or encoder_ckpt == "none":
        return None
    path = Path(encoder_ckpt)
    if not path.exists():
        found = None if path.suffix else named_bundle(path.name)
        if found is None:
            remedy = "fetch that bundle, give encoder_ckpt a file, or 'none' for a fresh encoder"
            raise CheckpointError(path, "no such file", remedy)
        path = found
    return encoder_file(path)


def encoder_state(path: str | Path, weights: str = "target") -> dict[str, Tensor]:
    """Tensors of an encoder under its own names, from a pretraining run's file or folder.

    Args:
        path: `model.pt` or `encoder.pt` of a pretraining run or a published bundle, or the folder of either.
        weights: `target` (the EMA encoder, which is the one in `encoder.pt`) or `context`, of a `model.pt`.

    Raises:
        ValueError: for another `weights`.
        CheckpointError: the file cannot be read or does not hold that encoder.
    """
    if weights not in _PREFIXES:
        raise ValueError(f"encoder_weights must be 'target' or 'context', got {weights!r}.")
    path = encoder_file(path)
    state = state_dict_of(read_weights(path), path)
    if weights == "context" and not any(name.startswith("target_encoder.") for name in state):
        raise CheckpointError(path, "holds one encoder, not the context encoder beside its target", "give model.pt")
    for prefix in _PREFIXES[weights]:
        if f"{prefix}patch_embed.proj.weight" in state:
            return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    raise CheckpointError(path, "holds no encoder", _OTHER)


def segmenter_settings(
    structures: Sequence[str],
    image_size: int | Sequence[int] = 224,
    size: str | None = None,
    patch_size: int = 16,
    decoder: str = "unet",
    base_channels: int = 32,
    encoder_ckpt: str | Path | None = None,
    encoder_weights: str = "target",
) -> SegmenterSettings:
    """Settings of a new segmenter; the encoder's are those of its checkpoint where there is one.

    Args:
        structures, decoder, base_channels: see `RadiographSegmenter`.
        image_size: px to segment at, one number or (height, width); a multiple of 16 for the `unet` decoder.
        size: the encoder's; None for that of `encoder_ckpt`, or `small` without one.
        patch_size: side of a patch in px; another one than the checkpoint's resizes its stem and positions.
        encoder_ckpt, encoder_weights: see `encoder_state`; None or `none` for fresh weights.

    Raises:
        ValueError: when the size is unknown, or the image is no multiple of the patch.
        CheckpointError: when the checkpoint is of another size, or cannot be read.
    """
    if size is not None and size not in VIT_SIZES:
        raise ValueError(f"network_size must be one of {', '.join(VIT_SIZES)}, got {size!r}.")
    if isinstance(structures, str) or not structures:
        raise ValueError(f"structures must be a list of names, got {structures!r}.")
    height, width = _pair(image_size)
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        raise ValueError(f"image_size {height} x {width} must be a positive multiple of patch_size {patch_size}.")
    reference, pretrained_patch, channels = (height, width), patch_size, 1
    if (path := _chosen(encoder_ckpt)) is not None:
        state = encoder_state(path, encoder_weights)
        channels, pretrained_patch = state["patch_embed.proj.weight"].shape[1:3]
        reference = reference_size(state, pretrained_patch, (height, width), path)
        found = encoder_size(state, path)
        if size not in (None, found):
            remedy = f"set network_size to {found}, or encoder_ckpt to another file or to 'none' (fresh weights)"
            raise CheckpointError(path, f"an encoder of size {found!r}, not {size!r}", remedy)
        size = found
    return SegmenterSettings(
        structures=tuple(str(name) for name in structures),
        image_size=(height, width),
        size=size or DEFAULT_SIZE,
        patch_size=int(patch_size),
        decoder=decoder,
        base_channels=int(base_channels),
        in_channels=int(channels),
        encoder_image_size=reference,
        pretrained_patch=int(pretrained_patch),
    )


def encoder_size(state: Mapping[str, Tensor], path: Path) -> str:
    """Name in `VIT_SIZES` of the encoder that the tensors are of.

    Raises:
        CheckpointError: none of them.
    """
    width = state["patch_embed.proj.weight"].shape[0]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for name, size in VIT_SIZES.items():
        if (size["embed_dim"], size["depth"]) == (width, depth):
            return name
    raise CheckpointError(
        path, f"an encoder of width {width} and depth {depth}", f"known sizes: {', '.join(VIT_SIZES)}"
    )


def reference_size(state: Mapping[str, Tensor], patch: int, image_size: tuple[int, int], path: Path) -> tuple[int, int]:
    """Size in px of the images that the position table is for: square, or the images' own grid.

    Raises:
        CheckpointError: it is for neither.
    """
    tokens = state["pos_embed"].shape[1] if "pos_embed" in state else 0
    rows, columns = image_size[0] // patch, image_size[1] // patch
    if tokens == rows * columns:
        return rows * patch, columns * patch
    side = round(tokens**0.5)
    if tokens == 0 or side**2 != tokens:
        raise CheckpointError(
            path,
            f"positions of {tokens} tokens, neither a square nor this image_size's",
            "set pretraining's image_size",
        )
    return side * patch, side * patch


def new_segmenter(
    settings: SegmenterSettings,
    encoder_ckpt: str | Path | None = None,
    encoder_weights: str = "target",
    drop_path: float = 0.0,
    freeze: str | int = "none",
) -> RadiographSegmenter:
    """A segmenter to train.

    Args:
        settings: its sizes, made with the same `encoder_ckpt`.
        encoder_ckpt, encoder_weights: where the encoder's weights come from (`encoder_state`); None or `none`: fresh.
        drop_path: the encoder's stochastic depth.
        freeze: `none`, `encoder`, or the number of first blocks (and the stem) that keep their weights.

    Raises:
        ValueError: for another `freeze`.
        CheckpointError: when the weights do not fit.
    """
    named = {"none": 0, "encoder": -1}
    if freeze not in named and not str(freeze).isdigit():
        raise ValueError(f"freeze must be 'none', 'encoder' or a number of blocks, got {freeze!r}.")
    network = settings.network(drop_path, named.get(freeze) if freeze in named else int(freeze))
    if (path := _chosen(encoder_ckpt)) is not None:
        state = encoder_state(path, encoder_weights)
        if settings.patch_size != settings.pretrained_patch:
            grid = tuple(side // settings.pretrained_patch for side in settings.encoder_image_size)
            state = resize_encoder(state, settings.patch_size, grid)
        _load(network.encoder, state, path)
    return network


def _load(module: torch.nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(path, f"does not fit the network ({reason})", _OTHER) from error


def save_segmenter(network: RadiographSegmenter, settings: SegmenterSettings, path: str | Path) -> None:
    """Write a file that `load_segmenter` needs nothing else for."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    with atomic_file(path) as stream:
        torch.save({"model": state, "settings": plain}, stream)


def _read(path: str | Path) -> tuple[SegmenterSettings, dict[str, Tensor]]:
    path = Path(path)
    content = read_weights(path)
    plain, names = content.get("settings"), {field.name for field in fields(SegmenterSettings)}
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        plain = config.get("settings") if isinstance(config, Mapping) else None
    if not isinstance(plain, Mapping) or set(plain) != names:
        raise CheckpointError(path, "not a segmentation model of this package", "give model.pt of a segmentation run")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return SegmenterSettings(**values), state_dict_of(content, path)


def read_settings(path: str | Path) -> SegmenterSettings:
    """Settings of a saved segmenter.

    Raises:
        CheckpointError: the file is no saved segmenter.
    """
    return _read(path)[0]


def load_segmenter(path: str | Path) -> RadiographSegmenter:
    """A saved segmenter, in evaluation mode on the CPU.

    Args:
        path: file of `save_segmenter`, such as a run's `model.pt`.

    Raises:
        CheckpointError: the file is damaged or no saved segmenter.
    """
    settings, state = _read(path)
    network = settings.network()
    _load(network, state, path)
    return network.eval()
