"""Position tables: hand-computed values, agreement with MONAI, order of the axes, other grids."""

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from torch.nn import functional as F

from cxw_monai.networks import RadiographViT, relative_table, sincos_table, table_order
from cxw_monai.networks.positions import axis_features, join_axes


def test_axis_features_are_sines_then_cosines_of_falling_frequencies():
    # dim 4: frequencies 10000 ** (-0/2) = 1 and 10000 ** (-1/2) = 0.01
    found = axis_features(torch.tensor([3.0], dtype=torch.float64), 4)
    expected = [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [384, 768])
@pytest.mark.parametrize("grid", [(14, 14), (7, 10)], ids=str)
def test_context_table_is_monais(dim, grid):
    monai_table = build_sincos_position_embedding(grid, dim, 2)
    assert (sincos_table(grid, dim) - monai_table).abs().max() < 1e-6


def test_token_one_of_both_orders():
    context, target = sincos_table((14, 14), 384), sincos_table((14, 14), 384, "row_first")
    # token 1 is row 0, column 1: its column's sine stands first in one table, 192 places later in the other
    assert context[0, 1, 0].item() == pytest.approx(0.84147, abs=1e-5)
    assert context[0, 1, 192].item() == 0.0
    assert target[0, 1, 0].item() == 0.0
    assert target[0, 1, 192].item() == pytest.approx(0.84147, abs=1e-5)


@pytest.mark.parametrize("grid", [(14, 14), (3, 5)], ids=str)
def test_orders_differ_by_a_swap_of_halves(grid):
    context, target = sincos_table(grid, 64), sincos_table(grid, 64, "row_first")
    assert torch.equal(torch.cat([target[..., 32:], target[..., :32]], dim=-1), context)
    assert (context - target).abs().max() > 1.5


@pytest.mark.parametrize("rows, columns", [(4, 4), (4, 7), (1, 3)])
def test_table_is_row_major(rows, columns):
    table = sincos_table((rows, columns), 8, "row_first", dtype=torch.float64)[0]
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        assert table[index, 0].item() == pytest.approx(math.sin(row), abs=1e-12)
        assert table[index, 4].item() == pytest.approx(math.sin(column), abs=1e-12)


def test_zero_offsets_give_the_row_first_table():
    relative = relative_table(torch.zeros(2, 4), (6, 9), 48)
    assert relative.shape == (2, 54, 48)
    assert (relative - sincos_table((6, 9), 48, "row_first")).abs().max() < 1e-6


@pytest.mark.parametrize("flip, gamma", [(1.0, 8.8), (0.0, -2.8)])
def test_relative_table_of_the_specification(flip, gamma):
    # cell (0, 0), G = 14: rho = 0.5 + 14 * 0.3 - 0.5 = 4.2; gamma = -0.5 + 14 * 0.7 - 0.5 = 8.8 when mirrored,
    # else 0.5 + 14 * -0.2 - 0.5 = -2.8
    rel = torch.tensor([[0.3, -0.2, flip, 0.7]], dtype=torch.float64)
    token = relative_table(rel, (14, 14), 384)[0, 0]
    for offset, coordinate in ((0, 4.2), (192, gamma)):
        for k in (0, 1, 95):
            angle = coordinate * 10000 ** (-k / 96)
            assert token[offset + k].item() == pytest.approx(math.sin(angle), abs=1e-9)
            assert token[offset + 96 + k].item() == pytest.approx(math.cos(angle), abs=1e-9)


def test_whole_cells_of_shift_move_the_table():
    grid, dim = (6, 8), 32
    table = sincos_table(grid, dim, "row_first", dtype=torch.float64).reshape(6, 8, dim)
    rel = torch.tensor([[2 / 6, 3 / 8, 0.0, 0.0]], dtype=torch.float64)
    shifted = relative_table(rel, grid, dim).reshape(6, 8, dim)
    torch.testing.assert_close(shifted[:4, :5], table[2:, 3:], rtol=0, atol=1e-12)


def test_flip_of_the_same_crop_reverses_the_columns():
    # d_jf = 1 for a crop and its own mirror image in the middle of the film
    grid, dim = (3, 5), 16
    table = sincos_table(grid, dim, "row_first", dtype=torch.float64).reshape(3, 5, dim)
    rel = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(relative_table(rel, grid, dim).reshape(3, 5, dim), table.flip(1), rtol=0, atol=1e-12)


def test_relative_table_takes_no_gradient():
    rel = torch.zeros(1, 4, requires_grad=True)
    assert not relative_table(rel, (2, 2), 8).requires_grad


@pytest.mark.parametrize("order", ["column_first", "row_first"])
@pytest.mark.parametrize("grid", [(14, 14), (4, 7)], ids=str)
def test_order_of_a_stored_table_is_found(order, grid):
    assert table_order(sincos_table(grid, 24, order), grid) == order


@pytest.mark.parametrize("change", ["resized", "trained", "transposed"])
def test_a_table_of_neither_order_is_refused(change):
    table = sincos_table((8, 8), 24)
    if change == "resized":
        stored = table.reshape(1, 8, 8, 24).permute(0, 3, 1, 2)
        resized = F.interpolate(stored, size=(12, 12), mode="bicubic", align_corners=False)
        table, grid = resized.flatten(2).transpose(1, 2), (12, 12)
    elif change == "trained":
        table, grid = table + 0.01, (8, 8)
    else:
        table, grid = sincos_table((4, 7), 24), (7, 4)
    with pytest.raises(ValueError, match=r"not a sine-cosine table of either order.*resized"):
        table_order(table, grid)


def test_positions_on_another_grid_lie_in_the_reference_grids_field_of_view():
    # 2 cells over 4: centres at 0.5 and 2.5 of the reference's cells
    table = sincos_table((2, 2), 8, "row_first", reference_grid=(4, 4), dtype=torch.float64)[0]
    assert table[:, 0].tolist() == pytest.approx([math.sin(0.5), math.sin(0.5), math.sin(2.5), math.sin(2.5)])
    assert table[:, 4].tolist() == pytest.approx([math.sin(0.5), math.sin(2.5), math.sin(0.5), math.sin(2.5)])
    assert torch.equal(sincos_table((4, 4), 8, reference_grid=(4, 4)), sincos_table((4, 4), 8))


@pytest.mark.parametrize("grid", [(20, 20), (28, 28), (12, 20)], ids=str)
def test_closed_form_approximates_the_bicubic_resize(grid):
    sizes = {"image_size": 224, "embed_dim": 96, "depth": 1, "num_heads": 3}
    closed = RadiographViT(**sizes).positions(grid)
    bicubic = RadiographViT(**sizes, position_resize="bicubic").positions(grid)
    assert closed.shape == bicubic.shape == (1, grid[0] * grid[1], 96)
    inner = [r * grid[1] + c for r in range(3, grid[0] - 3) for c in range(3, grid[1] - 3)]
    difference = (closed - bicubic)[0, inner].abs()
    own_cells = (sincos_table(grid, 96) - bicubic)[0, inner].abs()
    assert difference.max() < 0.15 and difference.mean() < 0.01
    assert own_cells.mean() > 10 * difference.mean()


def test_a_width_of_other_than_four_parts_is_refused():
    with pytest.raises(ValueError, match=r"multiple of 4.*got 6"):
        sincos_table((2, 2), 6)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match=r"'column_first' or 'row_first', got .?diagonal"):
        join_axes(torch.zeros(1), torch.zeros(1), 8, "diagonal")
