"""Relative geometry of two crops of one radiograph (arXiv 2504.13820, section 3, equations 4 to 7).

The global task predicts the tokens of one crop from another one. What links the two is where the target crop lies in
the coordinate system of the source crop: four numbers per direction, in units of the crop, so that they do not depend
on the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CropBox", "relative_coordinates", "relative_geometry"]


@dataclass(frozen=True)
class CropBox:
    """A crop of a full image, in pixels of the view's own full-image frame.

    A flipped view is the mirror image (left to right) of the radiograph: its ``left`` counts from the left edge of the
    mirror image, which is the right edge of the radiograph.

    Args:
        top: first row, px, >= 0.
        left: first column, px, >= 0, in the view's own (possibly mirrored) frame.
        height: px, >= 1.
        width: px, >= 1.
        flipped: whether the view is mirrored left to right.

    Raises:
        ValueError: if a position is negative or a size is below one pixel.
    """

    top: int
    left: int
    height: int
    width: int
    flipped: bool = False

    def __post_init__(self) -> None:
        for name, least in (("top", 0), ("left", 0), ("height", 1), ("width", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"CropBox {name} must be at least {least} px, got {value}.")

    def mirrored(self, image_width: int) -> CropBox:
        """The same pixels of the radiograph seen in the mirror image.

        Args:
            image_width: width of the full image, px.

        Returns:
            The box with ``flipped`` inverted and ``left`` counted from the other edge.

        Raises:
            ValueError: if the box does not fit in ``image_width``.
        """
        _check_fits(self, image_width)
        return CropBox(self.top, image_width - self.left - self.width, self.height, self.width, not self.flipped)


def _check_fits(box: CropBox, image_width: int) -> None:
    if box.left + box.width > image_width:
        raise ValueError(f"image_width is {image_width} px, but {box} ends at column {box.left + box.width}.")


def relative_geometry(source: CropBox, target: CropBox, image_width: int) -> tuple[float, float, float, float]:
    """Where ``target`` lies as seen from ``source``.

    Args:
        source: crop that the prediction starts from (the context view).
        target: crop to predict, of the same height and width in pixels.
        image_width: width of the full image, px; it links a frame with its mirror image.

    Returns:
        ``(d_i, d_j, flip, d_jf)``: shift down and shift right in units of the crop's height and width, 1.0 if exactly
        one of the views is flipped (else 0.0), and the offset that replaces ``d_j`` under a relative flip,
        ``(image_width - source.left - target.left) / width``.

    Raises:
        ValueError: if the crops differ in size or do not fit in ``image_width``.
    """
    if (source.height, source.width) != (target.height, target.width):
        raise ValueError(
            f"source and target must have the same height and width, got {source.height}x{source.width} "
            f"and {target.height}x{target.width} px."
        )
    _check_fits(source, image_width)
    _check_fits(target, image_width)
    return (
        (target.top - source.top) / source.height,
        (target.left - source.left) / source.width,
        float(source.flipped != target.flipped),
        (image_width - source.left - target.left) / source.width,
    )


def relative_coordinates(rel: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Coordinates of every target token in the token frame of the source crop.

    Token ``(r, c)`` of the source itself lies at ``rho = r``, ``gamma = c``. Under a relative flip the columns of the
    target run against those of the source, so ``gamma`` falls with the target's column.

    Args:
        rel: ``[B, 4]`` floating, rows as returned by :func:`relative_geometry`; ``flip`` is 0 or 1.
        grid: tokens per crop, ``(G_h, G_w)``; need not be square.

    Returns:
        ``(rho, gamma)``, each ``[B, N]`` with ``N = G_h * G_w`` in row-major order, in tokens, of the dtype and on the
        device of ``rel``. Fractional and negative values are normal.

    Raises:
        ValueError: if ``rel`` is not a floating ``[B, 4]`` tensor or ``grid`` is not two positive numbers.
    """
    if rel.ndim != 2 or rel.shape[1] != 4 or not rel.is_floating_point():
        raise ValueError(f"rel must be a floating [B, 4] tensor, got {rel.dtype} of shape {tuple(rel.shape)}.")
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"grid must be two numbers of tokens (rows, columns), each at least 1, got {tuple(grid)}.")
    rows, columns = grid
    d_i, d_j, flip, d_jf = rel.unbind(1)
    centre_row = torch.arange(rows, dtype=rel.dtype, device=rel.device) + 0.5
    centre_column = torch.arange(columns, dtype=rel.dtype, device=rel.device) + 0.5
    rho = centre_row + (rows * d_i - 0.5)[:, None]  # [B, G_h]
    straight = centre_column + (columns * d_j - 0.5)[:, None]  # [B, G_w]
    mirrored = -centre_column + (columns * d_jf - 0.5)[:, None]  # [B, G_w]
    gamma = torch.where(flip[:, None] > 0.5, mirrored, straight)
    batch = rel.shape[0]
    return (
        rho[:, :, None].expand(batch, rows, columns).reshape(batch, -1),
        gamma[:, None, :].expand(batch, rows, columns).reshape(batch, -1),
    )
