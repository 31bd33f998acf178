"""A bundle as a folder for the Hugging Face Hub.

::

    NAME/README.md           model card with its YAML front matter
    NAME/model.safetensors   weights under the names of models/model.pt
    NAME/config.json         what rebuilds the network
    NAME/...                 the bundle, as in its zip
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from safetensors.torch import save_file

from cxw_monai.inference.api import FilmModel, load
from cxw_monai.weights.bundles import BundleError
from cxw_monai.weights.kinds import Weights, read_weights

from .contents import read_metadata, stage_bundle, write_sums

__all__ = ["hugging_face_folder"]


def hugging_face_folder(
    bundle: str | PathLike[str], output_dir: str | PathLike[str], ckpt: str | PathLike[str] | None = None
) -> Path:
    """Write the folder `NAME` and load it back.

    Args:
        bundle: the bundle's folder.
        output_dir: is made.
        ckpt: weights instead of the bundle's `models/model.pt`.

    Returns:
        The folder; `huggingface-cli upload REPOSITORY FOLDER` takes it as it is.

    Raises:
        BundleError, CheckpointError: the bundle or the weights aren't what they should be, the folder exists already,
            or what was written doesn't give the bundle's own answer.
    """
    target = Path(output_dir) / Path(bundle).resolve().name
    if target.exists():
        raise BundleError(target, "exists already", "remove it, or give another --output")
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output_dir, prefix=".packaging.") as folder:
        staged = stage_bundle(Path(bundle), Path(folder), ckpt)
        weights, metadata = read_weights(staged / "models" / "model.pt"), read_metadata(staged)
        model = load(staged)
        state = weights.state
        save_file({name: value.contiguous() for name, value in state.items()}, staged / "model.safetensors")
        config = _config(model, weights, metadata)
        (staged / "config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
        (staged / "README.md").write_text(_card(staged, metadata, model), encoding="utf-8")
        write_sums(staged)
        film = np.random.default_rng(0).random((130, 110), dtype=np.float32)
        if not np.array_equal(load(staged / "model.safetensors").answer(film), model.answer(film)):
            raise BundleError(staged / "model.safetensors", "answers unlike models/model.pt", "report this")
        shutil.move(staged, target)
    return target


def _config(model: FilmModel, weights: Weights, metadata: dict[str, Any]) -> dict[str, Any]:
    config = {"library_name": "monai", "bundle_version": metadata["version"], "image_size": list(model.image_size)}
    config = {"model_type": model.HUB.model_type, **config}
    return config | ({"settings": asdict(weights.settings)} if model.STATE_KEY else {})


def _card(bundle: Path, metadata: dict[str, Any], model: FilmModel) -> str:
    """Model card: front matter, how to load it, the metadata's facts, the bundle's own card."""
    front = {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": model.HUB.pipeline_tag,
        "tags": ["monai", "medical", "radiology", "x-ray"],
    }
    own = bundle / "docs" / "model_card.md"
    own = own if own.is_file() else bundle / "docs" / "README.md"
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {metadata['name']} {metadata['version']}",
        f"{metadata['description']}.",
        f"**Intended use.** {metadata['intended_use']}",
        f"**Data.** {metadata['data_source']}.",
        "```python\nimport cxw_monai\n\n"
        + f'model = cxw_monai.load("{bundle.name}")  # this folder\n{model.HUB.call}\n```',
        "`models/model.ts` and `models/model.onnx` need nothing but torch or onnxruntime; what goes in and what comes "
        "out is described in `configs/metadata.json`.",
    ]
    if metadata["eval_metrics"]:
        rows = "\n".join(f"| {name} | {value} |" for name, value in metadata["eval_metrics"].items())
        lines.append(f"| metric | value |\n| --- | --- |\n{rows}")
    lines.append("\n".join(f"- {reference}" for reference in metadata["references"]))
    lines.append(_moved_up(own.read_text(encoding="utf-8")))
    return "\n\n".join(lines)


def _moved_up(text: str) -> str:
    """Markdown of a bundle's `docs` as it reads one folder higher; links that leave the bundle become their text."""
    text = re.sub(r"(?<!!)\[([^\]]*)\]\((?:\.\./){2,}[^)]*\)", r"\1", text)
    return re.sub(r"\]\((?!\w+:|#|\.\./)", "](docs/", text)
