"""Encoders in files: the network that a file's tensors tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .checkpoints import CheckpointError
from .networks import RadiographEmbedder, radiograph_vit
from .segmenter_checkpoints import encoder_file, encoder_size, encoder_state, reference_size

__all__ = ["load_embedder"]


def load_embedder(path: str | Path, image_size: int | Sequence[int] = 224) -> RadiographEmbedder:
    """The target encoder of a pretraining run, with all sizes read off its tensors.

    Args:
        path: `model.pt`, `encoder.pt` or their safetensors of a pretraining run or an imported checkpoint, or the
            folder of either.
        image_size: px of pretraining, one number or (height, width), which a table of positions that is not square
            does not tell by itself.

    Returns:
        The network in evaluation mode on the CPU; `encoder.grid` times `encoder.patch_size` is pretraining's size.

    Raises:
        CheckpointError: the file cannot be read, or holds no encoder of a known size.
    """
    path = encoder_file(path)
    state = encoder_state(path)
    _, channels, patch, _ = state["patch_embed.proj.weight"].shape
    asked = (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
    size = reference_size(state, patch, asked, path)
    encoder = radiograph_vit(encoder_size(state, path), image_size=size, patch_size=patch, in_channels=channels)
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(path, f"not an encoder of this package ({reason})", "import the weights first") from error
    return RadiographEmbedder(encoder).eval()
