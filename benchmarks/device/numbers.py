"""Checks that a device computes what the CPU does: networks, golden tensors, perturbations, crops."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.parity.golden import check_parity
from benchmarks.parity.reimplementation import write_golden
from benchmarks.speed.plain_loop import PlainLoop
from cxw_monai.training.precision import bfloat16_support
from cxw_monai.transforms import perturb
from cxw_monai.transforms.device_crops import with_views

from .outcome import NotApplicableError, compared, require
from .parts import exact_products, inputs_of, loader_batch, outputs_of, placed, small_model

__all__ = ["crops", "forward_bf16", "forward_fp32", "golden_tensors", "perturbations", "plain_loop"]

SHARED_GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
LEVEL = 1 / 255


def forward_fp32(device: torch.device) -> str:
    """Loss, predictions and targets in float32 without TF32, every set of objectives, as on the CPU."""
    found, expected = {}, {}
    for name, settings in {"": {}, "separate ": {"unified": False}, "pixels too ": {"targets": "both"}}.items():
        model = small_model(**settings)
        inputs = inputs_of(model, loader_batch())
        with exact_products():
            here = outputs_of(placed(model, device), inputs.to(device))
        expected |= {f"{name}{key}": value for key, value in outputs_of(model, inputs).items()}
        found |= {f"{name}{key}": value for key, value in here.items()}
    return compared(found, expected, 1e-4)


def forward_bf16(device: torch.device) -> str:
    """The same under bfloat16 autocast against float32 on the CPU: within the rounding of 8 bits."""
    if bfloat16_support(device) == "none":
        raise NotApplicableError("no bfloat16 products in hardware")
    model = small_model()
    inputs = inputs_of(model, loader_batch())
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = outputs_of(placed(model, device), inputs.to(device))
    return compared(found, outputs_of(model, inputs), 2e-2, relative=True)


def golden_tensors(device: torch.device) -> str:
    """Outputs and gradient norms in float64 against a re-implementation, and golden files of the released code."""
    with TemporaryDirectory() as folder:
        made = write_golden(Path(folder) / "made.npz")
        files = [made, *sorted(SHARED_GOLDEN.glob("*.npz"))]
        lines = [line for file in files for line in check_parity(file, device=device)]
    failed = [str(line) for line in lines if not line.passed]
    require(not failed, "; ".join(failed[:3]))
    released = f"{len(files) - 1} of the released code" if len(files) > 1 else "none of the released code here"
    return f"{len(lines)} comparisons, {released}"


def plain_loop(device: torch.device) -> str:
    """The loss in float64 of the same step written in plain PyTorch."""
    model = placed(small_model().double(), device)
    model.target_encoder.load_state_dict(model.encoder.state_dict())  # as the plain loop begins
    inputs = inputs_of(small_model(), loader_batch()).to(device, torch.float64)
    plain = PlainLoop(model).loss(inputs)
    return compared({"loss": model(inputs).loss}, {"loss": plain}, 1e-9)


def perturbations(device: torch.device) -> str:
    """Brightness, contrast, gamma, blur and noise on the device as on the CPU."""
    batch, found, expected = loader_batch(8), {}, {}
    for view in ("1", "2"):
        image, action = batch[f"view{view}"], batch[f"action{view}"]
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        expected[f"view {view}"] = perturb(image, action, noise)
        found[f"view {view}"] = perturb(image.to(device), action, noise.to(device))
    return compared(found, expected, 1e-4)


def crops(device: torch.device) -> str:
    """Views that are cut and resized on the device, as in the loader.

    Of 8-bit films both round twice: single pixels differ by 2 grey levels, which jitter multiplies by up to 1.96.
    """
    remarks = []
    for dtype, tolerance in ((np.uint8, 1.96 * 2.01 * LEVEL), (np.uint16, 1e-4)):
        expected = loader_batch(8, dtype=dtype)
        found = with_views(loader_batch(8, cut=False, dtype=dtype), device)
        views = [{name: views[name] for name in ("view1", "view2")} for views in (found, expected)]
        remarks.append(compared(*views, tolerance))
        mean = np.mean([(views[0][n].cpu() - views[1][n]).abs().mean().item() for n in views[0]])
        require(mean < 0.05 * LEVEL, f"the views differ by {mean / LEVEL:.3f} grey levels on average")
    return f"8 bits: {remarks[0]}; 16 bits: {remarks[1]}"
