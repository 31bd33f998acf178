"""Sine-cosine position tables of the encoder and the predictor.

Source: CheXWorld (arXiv 2504.13820), section 3; the table itself follows MAE (arXiv 2111.06377).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cxw_monai.transforms.geometry import relative_coordinates

__all__ = [
    "TableOrder",
    "axis_features",
    "join_axes",
    "relative_table",
    "sincos_table",
    "table_grid",
    "table_order",
]

TableOrder = Literal["column_first", "row_first"]


def axis_features(coordinates: Tensor, dim: int) -> Tensor:
    """Sines and cosines of one coordinate.

    Args:
        coordinates: positions in token units, any shape `[...]`, floating point.
        dim: number of features, even; `dim // 2` frequencies `10000 ** (-k / (dim / 2))`.

    Returns:
        `[..., dim]`: all sines, then all cosines, in the dtype of `coordinates`.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=coordinates.dtype, device=coordinates.device) / half
    angles = coordinates.unsqueeze(-1) * (1.0 / 10000**exponents)  # [..., dim / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def join_axes(rows: Tensor, columns: Tensor, dim: int, order: str) -> Tensor:
    """Features of (row, column) positions: half of `dim` an axis, the axis named by `order` first.

    Args:
        rows, columns: positions in token units, the same shape `[...]`.
        dim: features a position, a multiple of 4.
        order: which axis fills the first half.

    Returns:
        `[..., dim]`.
    """
    _check(dim, order)
    first, second = (columns, rows) if order == "column_first" else (rows, columns)
    return torch.cat([axis_features(first, dim // 2), axis_features(second, dim // 2)], dim=-1)


def _check(dim: int, order: str) -> None:
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4 for a two-axis sine-cosine table, got {dim}.")
    if order != "column_first" and order != "row_first":
        raise ValueError(f"order must be 'column_first' or 'row_first', got {order}.")


def sincos_table(
    grid: tuple[int, int],
    dim: int,
    order: str = "column_first",
    reference_grid: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Table of a token grid, row-major.

    Args:
        grid: rows and columns of tokens.
        dim: features a token, a multiple of 4.
        order: `column_first` is the encoder's (and MAE's and MONAI's) order, `row_first` that of mask tokens.
        reference_grid: when given, positions are expressed in cells of this grid laid over the same field of view,
            which is what interpolating the reference grid's table approximates. Default: the grid's own cells.
        dtype: dtype of the result; angles are computed in float64.
        device: where it is made; the CPU by default.

    Returns:
        `[1, rows * columns, dim]`.
    """
    rows = torch.arange(grid[0], dtype=torch.float64, device=device)
    columns = torch.arange(grid[1], dtype=torch.float64, device=device)
    if reference_grid is not None:
        rows = (rows + 0.5) * reference_grid[0] / grid[0] - 0.5
        columns = (columns + 0.5) * reference_grid[1] / grid[1] - 0.5
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    table = join_axes(row.flatten(), column.flatten(), dim, order)
    return table.unsqueeze(0).to(dtype)


def relative_table(rel: Tensor, grid: tuple[int, int], dim: int) -> Tensor:
    """Table of a target view's tokens in the token coordinates of the source view (paper eq. 4-7).

    Args:
        rel: `[B, 4]` relative geometry (see `cxw_monai.transforms.geometry.relative_geometry`), in fractions of the
            crop; zeros place the target on the source.
        grid: rows and columns of tokens of a view.
        dim: features a token, a multiple of 4.

    Returns:
        `[B, rows * columns, dim]`, rows first, detached, in the dtype of `rel`.
    """
    _check(dim, "row_first")
    rho, gamma = (part.unflatten(1, grid) for part in relative_coordinates(rel.detach(), grid))  # [B, rows, columns]
    row = axis_features(rho[:, :, 0], dim // 2).unsqueeze(2).expand(-1, -1, grid[1], -1)
    column = axis_features(gamma[:, 0], dim // 2).unsqueeze(1).expand(-1, grid[0], -1, -1)
    return torch.cat([row, column], dim=-1).flatten(1, 2)


def table_order(table: Tensor, grid: tuple[int, int]) -> TableOrder:
    """Which order a stored table was made in.

    Args:
        table: `[1, N, D]`.
        grid: rows and columns with `rows * columns == N`.

    Raises:
        ValueError: when the table is neither.
    """
    differences = {}
    for order in ("column_first", "row_first"):
        expected = sincos_table(grid, table.shape[-1], order, dtype=torch.float64)
        differences[order] = (table.detach().cpu().double() - expected).abs().max().item()
        if differences[order] <= 1e-3:
            return order
    raise ValueError(
        f"The table of {tuple(table.shape)} for grid {grid} is not a sine-cosine table of either order "
        f"(largest differences {differences}); was it trained or resized?"
    )


def table_grid(table: Tensor, cells: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int] | None:
    """Which grid a stored table is of: 64 x 96 and 96 x 64 px have as many tokens.

    Args:
        table: floating `[1, N, D]`.
        cells: height and width of a token in the cells that positions are counted in, less than 1 with a smaller patch
            than in pretraining (see `resize_encoder`).

    Returns:
        Rows and columns, or None where the table is no sine-cosine table (a learnt one) or its cells are others.
    """
    tokens, dim = table.shape[1:]
    # Of a large table, its first tokens and some of the others will do.
    sample = torch.unique(torch.cat([torch.arange(min(tokens, 256)), torch.linspace(0, tokens - 1, 256).long()]))
    stored = table.detach()[0, sample].double()  # [K, D]
    tolerance = max(1e-3, torch.finfo(table.dtype).eps)
    for columns in (number for number in range(1, tokens + 1) if tokens % number == 0):
        grid = tokens // columns, columns
        row, column = (
            (at.double() + 0.5) * cell - 0.5
            for at, cell in zip((sample // columns, sample % columns), cells, strict=True)
        )
        for order in ("column_first", "row_first"):
            if (stored - join_axes(row, column, dim, order)).abs().max() <= tolerance:
                return grid
    return None
