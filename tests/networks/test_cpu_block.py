"""The lean block is the sum of the block's modules: outputs and every gradient, however the batch is cut."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from cxw_monai.networks import (
    RadiographEmbedder,
    RadiographViT,
    WorldModelPredictor,
    configure_blocks,
    cpu_block,
    radiograph_vit,
    rows,
)
from cxw_monai.networks.layers import Block

DIM, HEADS, TOKENS, BATCH = 24, 3, 7, 5


def block(dtype: torch.dtype = torch.float64, **arguments: float) -> Block:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Block(DIM, HEADS, **arguments).to(dtype)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def tokens(dtype: torch.dtype = torch.float64, count: int = TOKENS) -> Tensor:
    return torch.randn(BATCH, count, DIM, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradients(out: Tensor, made: Block, x: Tensor, **options: bool) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out.sin().sum(), [x, *made.parameters()], **options)


@pytest.fixture
def calls(monkeypatch):
    """Batches that go through the lean block."""
    seen = []
    real = cpu_block.lean_block
    monkeypatch.setattr(cpu_block, "lean_block", lambda x, *rest: seen.append(x.shape) or real(x, *rest))
    return seen


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("per_slice", [None, 1, 2])
def test_outputs_and_gradients_are_those_of_the_modules(checkpoint, per_slice, monkeypatch, calls):
    if per_slice:
        monkeypatch.setattr(cpu_block, "SLICE_VALUES", per_slice * TOKENS * 4 * DIM)
        monkeypatch.setattr(cpu_block, "SCORE_VALUES", per_slice * HEADS * TOKENS**2)
    made, x = block(), tokens()
    plain, lean = made.residuals(x), configure_blocks(made, checkpoint=checkpoint)(x)
    assert calls == [x.shape]
    torch.testing.assert_close(lean, plain, rtol=0, atol=1e-12)
    expected = gradients(plain, made, x)
    for _ in range(2):  # the graph may be gone through again
        for found, wanted in zip(gradients(lean, made, x, retain_graph=True), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(made(x), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (3, 1200)])
def test_weight_gradients_in_bfloat16(shape):
    out, into = shape
    generator = torch.Generator().manual_seed(0)
    gradient, inputs = (torch.randn(50, n, generator=generator).bfloat16() for n in (out, into))
    found = cpu_block._weight_gradient(gradient, inputs)
    assert found.shape == (out, into) and found.is_contiguous()
    torch.testing.assert_close(found.double(), gradient.double().t() @ inputs.double(), rtol=1e-2, atol=0.1)


def test_bfloat16_is_as_near_to_float64_as_autocast_of_the_modules(calls):
    made, x = block(torch.float32), tokens(torch.float32)
    exact = copy.deepcopy(made).double()
    x_double = x.detach().double().requires_grad_()
    want = gradients(exact.residuals(x_double), exact, x_double)
    with torch.autocast("cpu", torch.bfloat16):
        plain, lean = made.residuals(x), made(x)
    assert calls and lean.dtype == plain.dtype == torch.float32
    errors = []
    for out in (lean, plain):
        found = gradients(out, made, x)
        assert all(f.dtype == torch.float32 for f in found)
        errors.append(sum(((f - w).norm() / w.norm()).item() for f, w in zip(found, want, strict=True)) / len(want))
    assert 0 < errors[0] < 1.2 * errors[1] < 0.05


def test_wide_products_are_cut_by_rows(monkeypatch):
    made, x = block(torch.float32), tokens(torch.float32)
    monkeypatch.setattr(cpu_block, "WIDE", 3 * DIM)
    monkeypatch.setattr(cpu_block, "FEW_ROWS", 24)
    monkeypatch.setattr(rows, "ROWS", 16)  # 35 rows become 48
    join, cuts, found = torch.cat, [], {}
    monkeypatch.setattr(torch, "cat", lambda parts: cuts.append([len(part) for part in parts]) or join(parts))
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with torch.autocast("cpu", torch.bfloat16):
            out = made(x)
        found[threads] = out, *gradients(out, made, x)
        # the MLP's second layer; in the backward pass the gradients at its first one's and the attention's input
        assert cuts == ([] if threads == 1 else [[32, 16]] * 3)
    for cut, whole in zip(found[2], found[1], strict=True):
        torch.testing.assert_close(cut, whole, rtol=0, atol=0.02 * float(whole.detach().abs().max()))


def test_what_is_kept_for_the_backward_pass():
    made, x = block(torch.float32), tokens(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        kept = made(x).grad_fn.kept
    channels = (3 + 1 + 1 + 4) * DIM  # queries, keys, values; attended; projected; before GELU
    assert sum(tensor.nbytes for part in kept for tensor in part) == 2 * channels * 64  # 35 rows, padded


def test_frozen_weights_get_no_gradient():
    made, x = block(), tokens()
    expected = gradients(made.residuals(x), made, x)
    names = [name for name, _ in made.named_parameters()]
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name == "mlp.fc1.weight")
    made(x.detach()).sin().sum().backward()
    torch.testing.assert_close(made.mlp.fc1.weight.grad, expected[1 + names.index("mlp.fc1.weight")])
    assert [name for name, p in made.named_parameters() if p.grad is not None] == ["mlp.fc1.weight"]


def test_where_the_modules_are_used(calls):
    made, x = block(torch.float32, drop_path=0.5), tokens(torch.float32)
    made.train()(x)  # stochastic depth
    made.eval().attn.plain_tokens = TOKENS - 1
    made(x)  # too long
    made.attn.plain_tokens = TOKENS
    with torch.autocast("cpu", torch.float16):
        made(x)
    assert calls == []
    made(x)
    assert calls == [x.shape]


def test_checkpointing_of_the_modules_changes_no_gradient(calls):
    made, x = block(drop_path=0.5), tokens()
    found = []
    for checkpoint in (False, True):
        configure_blocks(made, checkpoint=checkpoint).train()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            found.append(gradients(made(x), made, x))
    assert not calls
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_traced_and_scripted_networks_do_not_hold_it():
    encoder = RadiographViT(image_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
    network, image = RadiographEmbedder(encoder).eval(), torch.rand(2, 1, 32, 32)
    for made in (torch.jit.script(network), torch.jit.trace(network, image)):
        torch.testing.assert_close(made(image), network(image), rtol=0, atol=1e-6)
        assert "LeanBlock" not in str(made.inlined_graph)


class TestPaddedRows:
    """A bfloat16 product is compiled for each number of rows, so few numbers may occur."""

    def test_products_of_any_number_of_tokens_have_few_numbers_of_rows(self, monkeypatch):
        made = block(torch.float32)
        for name, counts in (("_linear", (forward := set())), ("_weight_gradient", (backward := set()))):
            real = getattr(cpu_block, name)
            monkeypatch.setattr(
                cpu_block, name, lambda x, *rest, real=real, counts=counts: counts.add(x.shape[0]) or real(x, *rest)
            )
        for count in range(1, 20):  # 5 to 95 rows
            x = tokens(torch.float32, count)
            with torch.autocast("cpu", torch.bfloat16):
                made(x).sum().backward()
        assert forward == backward == {64, 128}
        forward.clear()
        made(tokens(torch.float32))
        assert forward == {BATCH * TOKENS}  # float32 is left as it is
        forward.clear()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            made(tokens(torch.float32))
        assert forward == {BATCH * TOKENS}  # and so is inference, whose films are all of one size

    def test_what_pads_a_product_is_in_no_result(self):
        made, x = block(torch.float32), tokens(torch.float32)
        whole = torch.cat([x.detach()] * 64)  # 2240 rows, which need no padding
        with torch.autocast("cpu", torch.bfloat16):
            found, wanted = made(x), made(whole)[:BATCH]
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2)
        found_gradients = gradients(found, made, x)
        with torch.autocast("cpu", torch.bfloat16):
            exact = made.residuals(x)
        for mine, theirs in zip(found_gradients, gradients(exact, made, x), strict=True):
            assert (mine - theirs).norm() < 0.03 * theirs.norm()

    def test_the_linear_layers_around_the_blocks_are_filled_up_too(self):
        encoder = radiograph_vit("tiny", image_size=64, patch_size=16, depth=1)
        predictor = WorldModelPredictor(encoder.grid, encoder.embed_dim, 24, 1, 3)
        rows = []
        for layer in (predictor.predictor_embed, predictor.predictor_proj, predictor.policy_net):
            layer.register_forward_pre_hook(lambda _, inputs: rows.append(np.prod(inputs[0].shape[:-1])))
        places = torch.arange(7).expand(3, -1)  # 21 rows
        with torch.autocast("cpu", torch.bfloat16):
            context = encoder(torch.rand(3, 1, 64, 64), places)
            predictor(context, torch.zeros(3, 5), places, places + 7)
        assert rows == [64, 64, 64]

    @pytest.mark.parametrize("count", [1, 6, 64, 65])
    def test_row_wise_is_its_layers(self, count):
        layers = torch.nn.Sequential(torch.nn.Linear(DIM, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        seen = []
        layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        x = tokens(torch.float32, count)
        with torch.autocast("cpu", torch.bfloat16):
            found, wanted = rows.row_wise(layers, x), layers(x)
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2)
        assert found.shape == (BATCH, count, 3) and np.prod(seen[0][:-1]) % 64 == 0
        mine, theirs = (torch.autograd.grad(out.float().sum(), x)[0] for out in (found, wanted))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-2)
        torch.testing.assert_close(rows.row_wise(layers, x), layers(x), rtol=0, atol=0)
