"""A model as TorchScript and ONNX that need nothing of this package: a film in, the answer out."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_onnx, convert_to_torchscript

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.networks import WholeFilmNetwork

__all__ = ["ONNX_OPSET", "export_onnx", "export_torchscript"]

ONNX_OPSET = 17
_EXAMPLE = (2, 1, 96, 80)  # traced with; any batch, height and width will do afterwards


def export_torchscript(
    model: WholeFilmNetwork, path: str | PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write `model.ts`.

    Args:
        model: takes float32 `[B, 1, H, W]` in [0, 1].
        path: the file.
        metadata: the bundle's, stored inside: ``monai.data.load_net_with_metadata`` gives them back.
    """
    content = io.BytesIO()
    values = dict(metadata or {})
    save_net_with_metadata(convert_to_torchscript(model), content, include_config_vals=False, meta_values=values)
    with atomic_file(path) as stream, zipfile.ZipFile(content) as whole, zipfile.ZipFile(stream, "w") as kept:
        for member in whole.infolist():
            if not member.filename.endswith(".debug_pkl"):  # where the source lay on the machine that wrote it
                kept.writestr(member, whole.read(member))


def export_onnx(model: WholeFilmNetwork, path: str | PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write `model.onnx`: input `image`, output `pred`, any batch, height and width.

    Args:
        model: takes float32 `[B, 1, H, W]` in [0, 1].
        path: the file.
        metadata: the bundle's, stored as JSON under `metadata` in the file's own properties.
    """
    free = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        # The exporter that traces, for the other one needs ten times as long; what it fixes are sizes of the network.
        warnings.simplefilter("ignore")
        exported = convert_to_onnx(
            model,
            [torch.rand(_EXAMPLE)],
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": free, "pred": free if model.dense else {0: "batch"}},
            opset_version=ONNX_OPSET,
            dynamo=False,
        )
    entry = exported.metadata_props.add()
    entry.key, entry.value = "metadata", json.dumps(dict(metadata or {}))
    with atomic_file(Path(path)) as stream:
        stream.write(exported.SerializeToString())
