"""Comparison with golden tensors of the reference network."""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxw_monai.networks import WorldModel, WorldModelInputs, WorldModelSettings
from cxw_monai.weights.official import WorldModelGeometry, build_world_model, geometry_of

__all__ = ["ParityLine", "check_parity"]

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
FLAGS = {
    "iwm_disable",
    "rel_pos_disable",
    "reverse_pred",
    "target_last_k",
    "target_norm_type",
    "loss_type",
    "extra_loss_weight",
    "extra_mean",
    "reg_weight",
}
GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


@dataclass(frozen=True)
class ParityLine:
    """One comparison: name, difference (absolute for outputs, relative for gradient norms) and its tolerance."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        return f"{verdict} {self.name:<60} {self.difference:.3e} (tolerance {self.tolerance:.0e})"


def settings_of(arguments: dict[str, Any]) -> WorldModelSettings:
    """Settings that reproduce the reference's flags.

    Raises:
        ValueError: for a flag value that this package does not reproduce.
    """
    unknown = sorted(set(arguments) - FLAGS)
    if unknown:
        logger.warning("Flags without a counterpart here, taken as not mattering: %s.", ", ".join(unknown))
    losses = ("l2", "smooth_l1")
    loss, norm = arguments.get("loss_type", "l2"), arguments.get("target_norm_type", "avg_ln")
    if loss not in losses:
        raise ValueError(f"loss_type must be one of {list(losses)}, got {loss!r}.")
    if norm != "avg_ln":
        raise ValueError(f"target_norm_type must be 'avg_ln', got {norm!r}.")
    return WorldModelSettings.parity(
        condition_on_action=not arguments.get("iwm_disable", False),
        condition_on_geometry=not arguments.get("rel_pos_disable", False),
        swap_roles=arguments.get("reverse_pred", False),
        target_layers=arguments.get("target_last_k", 1),
        loss=loss,
        cross_weight=arguments.get("extra_loss_weight", 1.0),
        average_terms=arguments.get("extra_mean", False),
        variance_weight=arguments.get("reg_weight", 0.0),
    )


def model_of(state: dict[str, Tensor], config: dict[str, Any]) -> WorldModel:
    """The world model of a golden file, its images already normalised.

    Raises:
        ValueError: when the stored position table is not the one that the json states, or tensors do not fit.
    """
    geometry = geometry_of(state, config["num_heads"])
    expected = "row_first" if config.get("unify_embed") else "column_first"
    if geometry.context_order != expected:
        raise ValueError(
            f"The json says unify_embed={config.get('unify_embed')}, the table is {geometry.context_order}."
        )
    stated = WorldModelGeometry(
        image_size=config["img_size"],
        patch_size=config["patch_size"],
        in_channels=geometry.in_channels,
        embed_dim=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        predictor_embed_dim=config["predictor_embed_dim"],
        predictor_depth=config["predictor_depth"],
        predictor_num_heads=config["num_heads"],
        action_dim=geometry.action_dim,
        conditioning=geometry.conditioning,
        context_order=expected,
    )
    if stated != geometry:
        raise ValueError(f"The json states {stated}, the tensors say {geometry}.")
    model = build_world_model(geometry, settings_of(config.get("args", {})), 0.0, 1.0, "bicubic")
    for prefix in ("encoder.", "target_encoder."):
        state[f"{prefix}image_mean"] = torch.zeros(geometry.in_channels)
        state[f"{prefix}image_std"] = torch.ones(geometry.in_channels)
    dtype = state["encoder.pos_embed"].dtype
    model.to(dtype).load_state_dict(state)
    return model


def inputs_of(golden: dict[str, Tensor]) -> WorldModelInputs:
    """The batch of a golden file; view 2 uses view 1's masks in the order `in.mask_perm`."""
    permutation = golden["in.mask_perm"]
    return WorldModelInputs(
        view1=golden["in.image1"],
        view2=golden["in.image2"],
        perturbed1=golden["in.image_aug1"],
        perturbed2=golden["in.image_aug2"],
        action1=golden["in.aug_params1"],
        action2=golden["in.aug_params2"],
        rel_12=golden["in.rel_pos_12"],
        rel_21=golden["in.rel_pos_21"],
        context1=golden["in.mask_enc"],
        context2=golden["in.mask_enc"][permutation],
        target1=golden["in.mask_pred"],
        target2=golden["in.mask_pred"][permutation],
    )


def outputs_of(model: WorldModel, inputs: WorldModelInputs) -> dict[str, Tensor]:
    """The golden file's `out.*` from our network; leaves gradients of the loss on the parameters."""
    output = model(inputs)
    output.loss.backward()
    with torch.no_grad():
        full = model.encoder(inputs.view1)
        context = model.encoder(inputs.perturbed1, inputs.context1)
    return {
        "out.enc_full_image1": full,
        "out.enc_ctx_image_aug1": context,
        "out.target_image1": output.targets["11"],
        "out.z11": output.predictions["11"],
        "out.z21": output.predictions["21"],
        "out.loss": output.loss,
        "out.loss_intra": output.losses["intra"],
        "out.loss_extra": output.losses["cross"],
    }


def largest_difference(ours: Tensor, golden: Tensor) -> float:
    """Largest absolute difference, less the rounding that a golden value stored in float32 precision carries.

    The reference keeps some losses in float32 inside a float64 run: where every golden value is a float32 number, up
    to half a unit in its last place is the file's and not ours.
    """
    difference = (ours.reshape(golden.shape) - golden).abs()
    if golden.dtype == torch.float64 and bool((golden.float().double() == golden).all()):
        exponent = torch.frexp(golden).exponent
        half_unit = torch.ldexp(torch.ones_like(golden), exponent - 25)  # float32: 24 bits of mantissa
        difference = (difference - half_unit).clamp_min(0)
    return difference.max().item()


def compare(
    model: WorldModel, inputs: WorldModelInputs, golden: dict[str, Tensor], norms: dict[str, float]
) -> list[ParityLine]:
    """One line per `out.*` tensor and per gradient norm.

    Raises:
        ValueError: for a golden output or parameter without a counterpart.
    """
    model.zero_grad()
    ours = outputs_of(model, inputs)
    dtype = inputs.view1.dtype
    parameters = dict(model.named_parameters())
    outputs = [name for name in golden if name.startswith("out.")]
    unknown = sorted((set(outputs) - set(ours)) | (set(norms) - set(parameters)))
    if unknown:
        raise ValueError(f"No counterpart in our network for {', '.join(unknown)}.")
    lines = [ParityLine(name, largest_difference(ours[name], golden[name]), TOLERANCE[dtype]) for name in outputs]
    for name, norm in norms.items():
        gradient = parameters[name].grad
        found = 0.0 if gradient is None else gradient.norm().item()
        difference = abs(found - norm) / max(abs(norm), 1e-12)
        lines.append(ParityLine(f"grad_norm.{name}", difference, GRADIENT_TOLERANCE[dtype]))
    return lines


def read_golden(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a golden npz and what the json beside it says.

    Raises:
        FileNotFoundError: when one is missing.
        ValueError: when one cannot be read.
    """
    description = path.with_suffix(".json")
    for needed in (path, description):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed}: no such file; a golden npz needs its json beside it.")
    try:
        described = json.loads(description.read_text())
    except ValueError as error:
        raise ValueError(f"{description}: not a json file ({error}).") from error
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}, described
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable npz ({error}).") from error


def check_parity(
    golden_path: str | Path, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> list[ParityLine]:
    """Hold our network against golden tensors.

    Args:
        golden_path: `.npz` with `sd.*`, `in.*`, `out.*`; the json of the same name beside it has sizes, flags and
            gradient norms.
        dtype: `torch.float64` (tolerance 1e-9, gradient norms 1e-6 relative) or `torch.float32` (1e-4, 1e-3).
        device: where our network computes.

    Returns:
        One line per `out.*` key and per gradient norm of the files.

    Raises:
        FileNotFoundError: when the npz or its json is missing.
        ValueError: when the files disagree or ask for something that is not reproduced.
    """
    golden_path = Path(golden_path)
    golden, described = read_golden(golden_path)
    golden = {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in golden.items()
    }
    state = {name.removeprefix("sd."): value for name, value in golden.items() if name.startswith("sd.")}
    try:
        model = model_of(state, described["cfg"]).to(device).train()
        inputs = inputs_of(golden)
    except KeyError as error:
        raise ValueError(f"{golden_path} or its json lacks {error}.") from error
    except RuntimeError as error:
        raise ValueError(f"The tensors of {golden_path} do not fit its json: {' '.join(str(error).split())}") from error
    norms = described.get("grad_norm", {})
    if model.settings.condition_on_geometry:
        return compare(model, inputs, golden, norms)
    # Withheld geometry is a zero offset, whose table the reference may make in float32 (as within a view) or in the
    # dtype of the geometry; the two differ by 1e-8.
    candidates = [compare(model, inputs, golden, norms)]
    model.settings = replace(model.settings, condition_on_geometry=True)
    withheld = inputs.replace(rel_12=torch.zeros_like(inputs.rel_12), rel_21=torch.zeros_like(inputs.rel_21))
    candidates.append(compare(model, withheld, golden, norms))
    return min(candidates, key=lambda lines: sum(not line.passed for line in lines))
