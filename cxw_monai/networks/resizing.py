"""An encoder's weights for another patch size.

Segmentation gains from patches of 8 px, pretraining is at 16 px. The stem's kernel and the position table change, the
blocks stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from .positions import sincos_table, table_order

__all__ = ["resize_encoder", "resize_patch_embedding"]


def patch_resize_matrix(old: int, new: int) -> Tensor:
    """Matrix `[new ** 2, old ** 2]` in float64 that resizes a flattened patch: means of areas to a smaller size,
    bilinear to a larger one."""
    pixels = torch.eye(old**2, dtype=torch.float64).view(old**2, 1, old, old)
    if new < old:
        resized = F.interpolate(pixels, size=(new, new), mode="area")
    else:
        resized = F.interpolate(pixels, size=(new, new), mode="bilinear", align_corners=False)
    return resized.view(old**2, new**2).T


def resize_patch_embedding(weight: Tensor, new_patch: int) -> Tensor:
    """Kernel of a ViT's stem for another patch size.

    The pseudo-inverse resize of FlexiViT (arXiv 2212.08013, section 3.4). With B the matrix that resizes a patch from
    the old size to the new one, `w' = (B^T)^+ w`. For a larger patch `<B x, w'> = <x, w>` for every x. For a smaller
    one `<x', w'> = <B^+ x', w>`: what the old kernel gives for the smallest patch that shrinks to x'. From 16 to 8 px
    this is x' with every pixel doubled, and w' is the sum of each 2 x 2 weights. Bicubic interpolation of the kernel,
    as in the official fine-tuning code, shrinks pre-activations about fourfold there.

    Args:
        weight: `[D, C, p, p]`.
        new_patch: side in px of the new patch.

    Returns:
        `[D, C, new_patch, new_patch]` in the dtype of `weight`.

    Raises:
        ValueError: for a kernel that is not square, or a patch below 1 px.
    """
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        raise ValueError(f"A stem's kernel has the shape [D, C, p, p], got {tuple(weight.shape)}.")
    if new_patch < 1:
        raise ValueError(f"new_patch must be 1 px or more, got {new_patch}.")
    old_patch = weight.shape[2]
    if new_patch == old_patch:
        return weight.clone()
    inverse = torch.linalg.pinv(patch_resize_matrix(old_patch, new_patch).T)  # [new ** 2, old ** 2]
    resized = weight.detach().cpu().double().flatten(2) @ inverse.T  # [D, C, new ** 2]
    return resized.view(*weight.shape[:2], new_patch, new_patch).to(weight)


def resize_encoder(
    state: Mapping[str, Tensor], new_patch: int, grid: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """An encoder's state dict for another patch size on images of the same size.

    The new table holds the same field of view in the old grid's cells: token (r, c) of the new grid lies at
    `((r + 0.5) * new_patch / old_patch - 0.5, ...)`, so that the blocks meet the distances that they were trained on.
    Build the network with `position_grid=grid` (`radiograph_segmenter(..., patch=8, pretrained_patch=16)`), so that
    images of other sizes follow the same rule.

    Args:
        state: tensors of a `RadiographViT` under its own names (no prefix).
        new_patch: side in px of the new patch.
        grid: rows and columns of the stored table; by default square.

    Returns:
        A copy with another `patch_embed.proj.weight` and `pos_embed`; the other tensors are the same.

    Raises:
        ValueError: when stem or table are missing or of another shape, when the image is no multiple of the new patch,
            or when the stored table is not the encoder's sine-cosine table.
    """
    missing = {"patch_embed.proj.weight", "pos_embed"} - set(state)
    if missing:
        raise ValueError(f"Not an encoder's state dict: {', '.join(sorted(missing))} missing.")
    stem, table = state["patch_embed.proj.weight"], state["pos_embed"]
    side = round(table.shape[1] ** 0.5)
    rows, columns = (side, side) if grid is None else grid
    if rows * columns != table.shape[1]:
        raise ValueError(f"The table {tuple(table.shape)} is not of the grid {(rows, columns)}: give grid.")
    kernel = resize_patch_embedding(stem, new_patch)
    old_patch = stem.shape[2]
    if rows * old_patch % new_patch or columns * old_patch % new_patch:
        raise ValueError(
            f"Images of {rows * old_patch} x {columns * old_patch} px cannot be cut into patches of {new_patch} px."
        )
    new_grid = (rows * old_patch // new_patch, columns * old_patch // new_patch)
    order = table_order(table, (rows, columns))
    positions = sincos_table(new_grid, table.shape[-1], order, reference_grid=(rows, columns)).to(table)
    return {**state, "patch_embed.proj.weight": kernel, "pos_embed": positions}
