"""Any encoder of images, ours or another's, as the tests of a world model see it; what it needs is stated, not guessed.

An encoder is named by KIND:WHAT, with settings after commas, such as `hf:microsoft/rad-dino,pool=cls` or
`onnx:model.onnx,size=224,channels=3,mean=0.5,std=0.5`:

- `ours`: a file or folder of this package's weights, or a bundle's name;
- `timm`: a model's name; `hf`: a Hugging Face model's name or folder (safetensors, no code of the repository);
- `xrv`: weights of a torchxrayvision DenseNet, a name such as `densenet121-res224-all`;
- `torchscript`, `onnx`: a file; `python`: `package.module:function`, whose call gives the encoder.

An encoder gives, of images `[B, C, H, W]`, vectors `[B, D]`, tokens `[B, n, D]` or maps `[B, D, h, w]`.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxw_monai.metrics.world.worlds import BATCH
from cxw_monai.weights.bundles import find_bundle
from cxw_monai.weights.encoder import load_encoder
from cxw_monai.weights.files import one_line

__all__ = ["KINDS", "AnyEncoder", "Preprocessing", "open_encoder"]

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
POOLS = ("mean", "cls")


@dataclass(frozen=True)
class Preprocessing:
    """What a whole film, stretched and not cropped, goes through before an encoder.

    Attributes:
        size: rows and columns, px.
        channels: 1, or 3 of which all are the film.
        low, high: what the film's 0 and 1 (bone bright) become.
        mean, std: that are taken away and divided by afterwards, one for all channels or one each.
    """

    size: tuple[int, int]
    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.channels < 1 or min(self.std) <= 0 or self.low >= self.high:
            raise ValueError(f"size, channels and std must be above 0, and range must rise, got {self.stated()}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ValueError(f"{name} must be one number or one for each of {self.channels} channels")

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, 1, H, W]` in [0, 1] to `[B, channels, H, W]`."""
        scaled = self.low + (self.high - self.low) * images.expand(-1, self.channels, -1, -1)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (scaled - mean) / std

    def stated(self) -> str:
        """In words."""
        mean, std = ("/".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        size = f"{self.size[0]} x {self.size[1]} px, {channels}"
        return f"{size}, grey values {self.low:g} to {self.high:g}, mean {mean}, std {std}"


@dataclass
class AnyEncoder:
    """An encoder that only encodes; see `cxw_monai.metrics.world.worlds.World`.

    Args:
        name: for tables.
        compute: prepared images to vectors, tokens or maps.
        preprocessing: its own.
        pool: what a film's vector is: the mean of its patch tokens, or its first token (`cls`).
        prefix: tokens before those of the patches; None for as many as are more than a square.
    """

    name: str
    compute: Callable[[Tensor], Any]
    preprocessing: Preprocessing
    pool: str = "mean"
    prefix: int | None = None
    predicts: frozenset[str] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"{self.name}: pool must be {' or '.join(POOLS)}, got {self.pool!r}")
        self.size = self.preprocessing.size
        first, tokens = self._described(torch.rand((1, 1, *self.size), generator=torch.Generator().manual_seed(0)))
        self.grid, self.dimensions = _grid(tokens.shape[1], self.size), first.shape[1]

    @torch.no_grad()
    def _described(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[B, D]` and patch tokens `[B, n, D]`, one token where there are only vectors."""
        found = _tensor(self.compute(self.preprocessing(images)))
        if found is None or not 2 <= found.ndim <= 4 or len(found) != len(images):
            shape = "no tensor" if found is None else f"shape {list(found.shape)}"
            raise ValueError(
                f"{self.name}: gives {shape} for {len(images)} images; expected [B, D], [B, n, D] or [B, D, h, w]"
            )
        found = found.detach().float().cpu()
        if not torch.isfinite(found).all():
            raise ValueError(
                f"{self.name}: gives NaN or infinity; check its preprocessing: {self.preprocessing.stated()}"
            )
        if found.ndim == 2:
            return found, found[:, None]
        if found.ndim == 4:
            found = found.flatten(2).transpose(1, 2)
            return found.mean(dim=1), found
        extra = found.shape[1] - math.isqrt(found.shape[1]) ** 2 if self.prefix is None else self.prefix
        patches = found[:, extra:]
        return (found[:, 0] if self.pool == "cls" else patches.mean(dim=1)), patches

    def _batches(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [self._described(part) for part in images.split(BATCH)]

    def tokens(self, images: Tensor) -> Tensor:
        """Patch tokens of `[B, 1, H, W]` in [0, 1]: `[B, n, D]`."""
        return torch.cat([tokens for _, tokens in self._batches(images)])

    def vector(self, images: Tensor) -> np.ndarray:
        """One vector a film, `[B, D]`."""
        return torch.cat([vectors for vectors, _ in self._batches(images)]).numpy()

    def targets(self, images: Tensor) -> Tensor:
        raise TypeError("an encoder without a predictor has no targets: see `predicts`")

    def predict(self, *_: Any, **__: Any) -> Tensor:
        raise TypeError("an encoder without a predictor predicts nothing: see `predicts`")


def _tensor(found: Any) -> Tensor | None:
    """The first tensor of what a network gave."""
    if hasattr(found, "last_hidden_state"):
        return found.last_hidden_state
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, (list, tuple)):
        return next((one for one in map(_tensor, found) if one is not None), None)
    if isinstance(found, np.ndarray):
        return torch.from_numpy(found)
    return found if isinstance(found, Tensor) else None


def _grid(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens, in the proportion of the image."""
    rows = max(1, round(math.sqrt(count * size[0] / size[1])))
    if count % rows:
        raise ValueError(f"{count} patch tokens fit no grid of a {size[0]} x {size[1]} image; give prefix=NUMBER")
    return rows, count // rows


def open_encoder(spec: str) -> AnyEncoder:
    """The encoder of a text, see the module.

    Raises:
        ValueError: an unknown kind or setting, a missing library, or an encoder that can't be read or used; the
            message says what to do.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        kinds = ", ".join(f"{name}:..." for name in KINDS)
        raise ValueError(f"{spec!r}: an encoder is one of {kinds}; a callable is python:package.module:function")
    what, *given = rest.split(",")
    if not what:
        raise ValueError(f"{spec!r}: nothing after {kind}:; give what to open")
    settings = _settings(spec, given)
    if (library := LIBRARIES.get(kind)) and importlib.util.find_spec(library) is None:
        raise ValueError(f'{spec}: needs {library}; pip install "cxw-monai[rivals]"')
    try:
        compute, preprocessing, own = KINDS[kind](what, settings)
    except ValueError:
        raise
    except Exception as error:  # whatever the libraries make of a bad name, a broken file or no network
        raise ValueError(f"{spec}: can't be opened ({one_line(error)}); check the name or give a local file") from error
    own |= {name: settings[name] for name in ("pool", "prefix") if name in settings}
    changed = {name: value for name, value in settings.items() if name not in own}
    try:
        return AnyEncoder(spec, compute, replace(preprocessing, **changed), **own)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(spec) else f"{spec}: {error}") from error
    except Exception as error:
        stated = replace(preprocessing, **changed).stated()
        raise ValueError(
            f"{spec}: fails on an image of {stated} ({one_line(error)}); give size=, channels= as it needs them"
        ) from error


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/"))


def _side(text: str) -> tuple[int, int]:
    sides = tuple(int(part) for part in text.split("/"))
    return (sides[0], sides[-1])


_READ: dict[str, Callable[[str], Any]] = {
    "size": _side,
    "channels": int,
    "range": _numbers,
    "mean": _numbers,
    "std": _numbers,
    "pool": str,
    "prefix": int,
}
"""Settings after commas: `size=224` or `size=224/192`, `range=0/255`, `mean=0.485/0.456/0.406`, `pool=cls`."""


def _settings(spec: str, given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name not in _READ or not equals:
            raise ValueError(f"{spec!r}: {text!r} is no setting; there are {', '.join(f'{one}=' for one in _READ)}")
        try:
            found[name] = _READ[name](value)
        except ValueError as error:
            raise ValueError(f"{spec!r}: {name} must be a number or numbers with / between, got {value!r}") from error
    if "range" in found:
        if len(found["range"]) != 2:
            raise ValueError(f"{spec!r}: range must be two numbers, such as 0/255")
        found["low"], found["high"] = found.pop("range")
    return found


Opened = tuple[Callable[[Tensor], Any], Preprocessing, dict[str, Any]]
"""What computes, its own preprocessing, and its own `prefix` where that is known."""


def _ours(what: str, settings: Mapping[str, Any]) -> Opened:
    encoder = load_encoder(find_bundle(what)).encoder
    size = (encoder.grid[0] * encoder.patch_size, encoder.grid[1] * encoder.patch_size)
    return encoder, Preprocessing(size), {"prefix": 0}  # it holds its own normalisation


def _timm(what: str, settings: Mapping[str, Any]) -> Opened:
    import timm

    model = timm.create_model(what, pretrained=True, num_classes=0).eval()
    config = model.pretrained_cfg
    channels, height, width = config["input_size"]
    mean, std = (tuple(config.get(name) or IMAGENET[name]) for name in ("mean", "std"))
    prefix = {"prefix": model.num_prefix_tokens} if hasattr(model, "num_prefix_tokens") else {}
    return model.forward_features, Preprocessing((height, width), channels, mean=mean, std=std), prefix


def _hf(what: str, settings: Mapping[str, Any]) -> Opened:
    from transformers import AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    model = AutoModel.from_pretrained(what, use_safetensors=True, trust_remote_code=False).eval()
    try:
        read = ImageProcessingMixin.get_image_processor_dict(what)[0]
    except OSError as error:
        if not {"size", "mean", "std"} <= set(settings):
            raise ValueError(
                f"hf:{what}: no preprocessor_config.json; give its preprocessing, such as size=224,mean=0.5,std=0.5"
            ) from error
        read = {}
    channels = getattr(model.config, "num_channels", 3)
    size = settings.get("size") or _hf_size(read, model.config)
    preprocessing = Preprocessing(size, channels, high=1.0 if read.get("do_rescale", True) else 255.0)
    if read.get("do_normalize", True):
        mean, std = (
            tuple(read.get(name) or default) for name, default in (("image_mean", (0.0,)), ("image_std", (1.0,)))
        )
        preprocessing = replace(preprocessing, mean=mean, std=std)
    own, patch = {}, getattr(model.config, "patch_size", None)
    if isinstance(patch, int) and size[0] % patch == size[1] % patch == 0:
        own["prefix"] = _prefix(model, size, channels, (size[0] // patch) * (size[1] // patch))
    return lambda x: model(pixel_values=x).last_hidden_state, preprocessing, own


@torch.no_grad()
def _prefix(model: Any, size: tuple[int, int], channels: int, patches: int) -> int:
    """How many tokens come before those of the patches: class and register tokens."""
    return model(pixel_values=torch.zeros(1, channels, *size)).last_hidden_state.shape[1] - patches


def _hf_size(read: Mapping[str, Any], config: Any) -> tuple[int, int]:
    """Of the crop or the image; a shorter edge is taken for both."""
    given = (read.get("crop_size") if read.get("do_center_crop") else None) or read.get("size") or config.image_size
    if isinstance(given, Mapping):
        edge = given.get("shortest_edge")
        given = (given.get("height", edge), given.get("width", edge))
    return (int(given), int(given)) if isinstance(given, int) else (int(given[0]), int(given[1]))


def _xrv(what: str, settings: Mapping[str, Any]) -> Opened:
    import torchxrayvision

    model = torchxrayvision.models.DenseNet(weights=what).eval()
    return model.features, Preprocessing((224, 224), 1, -1024.0, 1024.0), {}


def _torchscript(what: str, settings: Mapping[str, Any]) -> Opened:
    return torch.jit.load(_file(what), map_location="cpu").eval(), Preprocessing((224, 224)), {}


def _onnx(what: str, settings: Mapping[str, Any]) -> Opened:
    import onnxruntime

    session = onnxruntime.InferenceSession(_file(what), providers=["CPUExecutionProvider"])
    (first, *others) = session.get_inputs()
    if others or len(first.shape) != 4:
        raise ValueError(f"onnx:{what}: one input of images [B, C, H, W] is expected, not {first.shape}")
    channels, *size = (side if isinstance(side, int) else None for side in first.shape[1:])
    height, width = (side or 224 for side in size)

    def compute(images: Tensor) -> Any:
        batches = images.split(1) if first.shape[0] == 1 else [images]
        found = [session.run(None, {first.name: part.numpy()})[0] for part in batches]
        return np.concatenate(found)

    return compute, Preprocessing((height, width), channels or 1), {}


def _python(what: str, settings: Mapping[str, Any]) -> Opened:
    module, colon, name = what.partition(":")
    if not colon:
        raise ValueError(f"python:{what}: give package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module of the folder that the command runs in
    encoder = getattr(importlib.import_module(module), name)()
    if not callable(encoder):
        raise ValueError(f"python:{what}: gives a {type(encoder).__name__}; it must give what takes images")
    if isinstance(encoder, torch.nn.Module):
        encoder.eval()
    return encoder, Preprocessing((224, 224)), {}


def _file(what: str) -> str:
    if not Path(what).is_file():
        raise ValueError(f"{what}: no such file; check the path")
    return what


KINDS: dict[str, Callable[[str, Mapping[str, Any]], Opened]] = {
    "ours": _ours,
    "timm": _timm,
    "hf": _hf,
    "xrv": _xrv,
    "torchscript": _torchscript,
    "onnx": _onnx,
    "python": _python,
}
"""What opens each kind of encoder."""
LIBRARIES = {"timm": "timm", "hf": "transformers", "xrv": "torchxrayvision", "onnx": "onnxruntime"}
"""Those that aren't installed with this package."""
