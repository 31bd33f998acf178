"""Golden files as the reference network makes them, by a plain re-implementation.

It follows the description of the network (positions, encoder, predictor, losses) with functions on a state dict and
shares no code with the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["reference_outputs", "write_golden"]

FLAGS = {
    "iwm_disable": False,
    "rel_pos_disable": False,
    "reverse_pred": False,
    "target_last_k": 1,
    "target_norm_type": "avg_ln",
    "loss_type": "l2",
    "extra_loss_weight": 1.0,
    "extra_mean": True,
    "reg_weight": 0.0,
}
SIZES = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "predictor_embed_dim": 12,
    "predictor_depth": 2,
    "policy_dim": 5,
    "unify_embed": False,
}


def features(x: Tensor, width: int) -> Tensor:
    angle = x[..., None] * (1.0 / 10000 ** (torch.arange(width // 2, dtype=x.dtype) / (width // 2)))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def context_table(side: int, dim: int) -> Tensor:
    cell = torch.arange(side * side)
    row, column = (cell // side).double(), (cell % side).double()
    return torch.cat([features(column, dim // 2), features(row, dim // 2)], dim=-1)[None].float().double()


def target_table(rel: Tensor, side: int, dim: int) -> Tensor:
    cell = torch.arange(side * side)
    row, column = (cell // side).to(rel) + 0.5, (cell % side).to(rel) + 0.5
    tables = []
    for down, right, flip, mirrored in rel:
        rho = row + (side * down - 0.5)
        gamma = -column + (side * mirrored - 0.5) if flip == 1 else column + (side * right - 0.5)
        tables.append(torch.cat([features(rho, dim // 2), features(gamma, dim // 2)], dim=-1))
    return torch.stack(tables).double()


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    return torch.stack(
        [sample[places] for sample, places in zip(tokens.expand(len(index), -1, -1), index, strict=True)]
    )


def block(state: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    dim = x.shape[-1]

    def linear(layer: str, value: Tensor) -> Tensor:
        return value @ state[f"{name}.{layer}.weight"].T + state[f"{name}.{layer}.bias"]

    def norm(layer: str, value: Tensor) -> Tensor:
        return F.layer_norm(value, (dim,), state[f"{name}.{layer}.weight"], state[f"{name}.{layer}.bias"], 1e-6)

    q, k, v = (part.unflatten(-1, (heads, -1)) for part in linear("attn.qkv", norm("norm1", x)).chunk(3, dim=-1))
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / (dim // heads) ** 0.5
    x = x + linear("attn.proj", torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).flatten(2))
    return x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))


def encode(state: dict[str, Tensor], name: str, cfg: dict, image: Tensor, index: Tensor | None) -> list[Tensor]:
    """All blocks' outputs, the last one normed."""
    stem, bias = state[f"{name}.patch_embed.proj.weight"], state[f"{name}.patch_embed.proj.bias"]
    x = F.conv2d(image, stem, bias, stride=cfg["patch_size"]).flatten(2).transpose(1, 2) + state[f"{name}.pos_embed"]
    x = x if index is None else pick(x, index)
    outputs = []
    for number in range(cfg["depth"]):
        x = block(state, f"{name}.blocks.{number}", x, cfg["num_heads"])
        outputs.append(x)
    norm = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
    outputs[-1] = F.layer_norm(x, x.shape[-1:], *norm, 1e-6)
    return outputs


def predict(state: dict, cfg: dict, z: Tensor, action: Tensor, seen: Tensor, wanted: Tensor, rel: Tensor) -> Tensor:
    p = {key.removeprefix("predictor."): value for key, value in state.items() if key.startswith("predictor.")}
    side, dim = cfg["img_size"] // cfg["patch_size"], cfg["predictor_embed_dim"]
    u = z @ p["predictor_embed.weight"].T + p["predictor_embed.bias"] + pick(p["predictor_pos_embed"], seen)
    t = p["mask_token"] + pick(target_table(rel, side, dim).expand(len(z), -1, -1), wanted)
    t = torch.cat([t, action[:, None].expand(-1, t.shape[1], -1)], dim=-1)
    t = (t @ p["policy_net.0.weight"].T + p["policy_net.0.bias"]).clamp_min(0)
    t = (t @ p["policy_net.2.weight"].T + p["policy_net.2.bias"]).clamp_min(0)
    x = torch.cat([u, t @ p["policy_net.4.weight"].T + p["policy_net.4.bias"]], dim=1)
    for number in range(cfg["predictor_depth"]):
        x = block(p, f"predictor_blocks.{number}", x, cfg["num_heads"])
    x = F.layer_norm(x, (dim,), p["predictor_norm.weight"], p["predictor_norm.bias"], 1e-6)[:, z.shape[1] :]
    return x @ p["predictor_proj.weight"].T + p["predictor_proj.bias"]


def random_state(cfg: dict, generator: torch.Generator) -> dict[str, Tensor]:
    def draw(*shape: int) -> Tensor:
        return 0.15 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def blocks(name: str, dim: int, depth: int) -> None:
        for number in range(depth):
            for layer, shape in {
                "attn.qkv": (3 * dim, dim),
                "attn.proj": (dim, dim),
                "mlp.fc1": (4 * dim, dim),
                "mlp.fc2": (dim, 4 * dim),
            }.items():
                state[f"{name}.{number}.{layer}.weight"] = draw(*shape)
                state[f"{name}.{number}.{layer}.bias"] = draw(shape[0])
            norms(*(f"{name}.{number}.{norm}" for norm in ("norm1", "norm2")), dim=dim)

    def norms(*names: str, dim: int) -> None:
        for name in names:
            state[f"{name}.weight"], state[f"{name}.bias"] = 1 + draw(dim), draw(dim)

    state: dict[str, Tensor] = {}
    dim, narrow, patch = cfg["embed_dim"], cfg["predictor_embed_dim"], cfg["patch_size"]
    side = cfg["img_size"] // patch
    for name in ("encoder", "target_encoder"):
        state[f"{name}.pos_embed"] = context_table(side, dim)
        state[f"{name}.patch_embed.proj.weight"], state[f"{name}.patch_embed.proj.bias"] = (
            draw(dim, 3, patch, patch),
            draw(dim),
        )
        blocks(f"{name}.blocks", dim, cfg["depth"])
        norms(f"{name}.norm", dim=dim)
    unified = target_table(torch.zeros(1, 4), side, narrow)
    state["predictor.predictor_pos_embed"] = unified if cfg["unify_embed"] else context_table(side, narrow)
    state["predictor.mask_token"] = draw(1, 1, narrow)
    for name, shape in {
        "predictor_embed": (narrow, dim),
        "predictor_proj": (dim, narrow),
        "policy_net.0": (narrow, narrow + cfg["policy_dim"]),
        "policy_net.2": (narrow, narrow),
        "policy_net.4": (narrow, narrow),
    }.items():
        state[f"predictor.{name}.weight"], state[f"predictor.{name}.bias"] = draw(*shape), draw(shape[0])
    blocks("predictor.predictor_blocks", narrow, cfg["predictor_depth"])
    norms("predictor.predictor_norm", dim=narrow)
    return state


def random_batch(cfg: dict, generator: torch.Generator, batch: int = 3) -> dict[str, Tensor]:
    side, tokens = cfg["img_size"], (cfg["img_size"] // cfg["patch_size"]) ** 2
    made = {name: torch.randn((batch, 3, side, side), generator=generator).double() for name in ("image1", "image2")}
    made |= {f"image_aug{view}": made[f"image{view}"] * 0.7 + 0.3 for view in (1, 2)}
    for name in ("aug_params1", "aug_params2"):
        made[name] = torch.rand((batch, cfg["policy_dim"]), generator=generator).double() + 0.5
    for name in ("rel_pos_21", "rel_pos_12"):
        made[name] = torch.rand((batch, 4), generator=generator).double() - 0.5
        made[name][:, 2] = torch.tensor([0.0, 1.0, 0.0][:batch])
    order = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
    made["mask_enc"], made["mask_pred"] = (
        order[:, : tokens // 2].sort(1).values,
        order[:, -tokens // 3 :].sort(1).values,
    )
    made["mask_perm"] = torch.tensor([1, 2, 0][:batch])
    return made


def reference_outputs(
    state: dict[str, Tensor], cfg: dict, x: dict[str, Tensor], withheld: torch.dtype
) -> dict[str, Tensor]:
    """The golden `out.*`; a withheld geometry is zeros of the dtype `withheld`."""
    flags = cfg["args"]

    def target(image: Tensor) -> Tensor:
        with torch.no_grad():
            last = encode(state, "target_encoder", cfg, image, None)[-flags["target_last_k"] :]
            return torch.stack([F.layer_norm(tokens, tokens.shape[-1:]) for tokens in last]).mean(0)

    def distance(prediction: Tensor, wanted: Tensor) -> Tensor:
        size = (prediction - wanted).abs()
        if flags["loss_type"] == "l2":
            return size.square().mean()
        return torch.where(size < 1, size.square() / 2, size - 0.5).mean()

    seen, held = ("image", "image_aug") if flags["reverse_pred"] else ("image_aug", "image")
    contexts = {"1": x["mask_enc"], "2": x["mask_enc"][x["mask_perm"]]}
    masks = {"1": x["mask_pred"], "2": x["mask_pred"][x["mask_perm"]]}
    z = {view: encode(state, "encoder", cfg, x[seen + view], contexts[view])[-1] for view in "12"}
    h = {view: target(x[held + view]) for view in "12"}
    predictions, losses = {}, {}
    for to, source in ("11", "22", "21", "12"):
        action = x[f"aug_params{source}"] * (0 if flags["iwm_disable"] else 1)
        rel = torch.zeros(1, 4)
        if to != source:
            rel = torch.zeros(1, 4, dtype=withheld) if flags["rel_pos_disable"] else x[f"rel_pos_{to}{source}"]
        predictions[to + source] = predict(state, cfg, z[source], action, contexts[source], masks[to], rel)
        losses[to + source] = distance(predictions[to + source], pick(h[to], masks[to]))
    intra, extra = (losses["11"] + losses["22"]) / 2, (losses["21"] + losses["12"]) / 2
    loss = intra + flags["extra_loss_weight"] * extra
    return {
        "enc_full_image1": encode(state, "encoder", cfg, x["image1"], None)[-1],
        "enc_ctx_image_aug1": encode(state, "encoder", cfg, x["image_aug1"], contexts["1"])[-1],
        "target_image1": pick(h["1"], masks["1"]),
        "z11": predictions["11"],
        "z21": predictions["21"],
        "loss": (loss / (1 + flags["extra_loss_weight"]) if flags["extra_mean"] else loss)[None],
        "loss_intra": intra[None],
        "loss_extra": extra[None],
    }


def write_golden(path: Path, withheld: torch.dtype = torch.float32, args: dict | None = None, **sizes: Any) -> Path:
    """Make a golden npz and its json."""
    cfg = {**SIZES, **sizes, "args": {**FLAGS, **(args or {})}}
    generator = torch.Generator().manual_seed(0)
    state, batch = random_state(cfg, generator), random_batch(cfg, generator)
    trained = {n: v.requires_grad_() for n, v in state.items() if not n.startswith("target_") and "pos_embed" not in n}
    outputs = reference_outputs(state, cfg, batch, withheld)
    outputs["loss"].sum().backward()
    arrays = {f"sd.{name}": value for name, value in state.items()}
    arrays |= {f"in.{name}": value for name, value in batch.items()} | {f"out.{n}": v for n, v in outputs.items()}
    np.savez(path, **{name: value.detach().numpy() for name, value in arrays.items()})
    norms = {name: value.grad.norm().item() for name, value in trained.items()}
    path.with_suffix(".json").write_text(json.dumps({"cfg": cfg, "grad_norm": norms}))
    return path
