"""What each setting of the bundles must be, and what a resumed run may not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .kinds import AnyOf, Choice, Flag, Kind, Names, Number, Numbers, Table, Text

__all__ = ["FIXED", "FREE", "kind_of"]

_SHARE = Number(within="[0, 1]")
_COUNT = Number(within="[1, inf)", whole=True)
_COUNT_OR_NULL = Number(within="[1, inf)", whole=True, optional=True)
_LEAST_0 = Number(within="[0, inf)")
_RANGE = Numbers(each=_LEAST_0)
_RANGE_OR_NULL = Numbers(each=_LEAST_0, optional=True)
_PATH, _PATH_OR_NULL = Text(what="a path"), Text(what="a path", optional=True)
_SIZE = AnyOf(kinds=(_COUNT, Numbers(each=_COUNT)))
_LEVELS = AnyOf(kinds=(_LEAST_0, Numbers(each=_LEAST_0, count=None)))

KINDS: dict[str, Kind] = {
    # files
    **dict.fromkeys(("bundle_root", "output_dir", "output", "cache_dir", "ckpt"), _PATH),
    **dict.fromkeys(("dataset_dir", "datalist", "test_datalist", "input", "start_from", "encoder_ckpt"), _PATH_OR_NULL),
    "resume": AnyOf(kinds=(Flag(), _PATH), optional=True),
    "verify_cache": Flag(),
    "on_error": Choice(words=("raise", "skip")),
    "formats": Names(),
    # reading
    "voi": Choice(words=("auto", "lut", "window", "none")),
    "voi_item": AnyOf(kinds=(Number(within="[0, inf)", whole=True), Text())),
    "window": Numbers(optional=True),
    "percentiles": Numbers(each=Number(within="[0, 100]"), optional=True),
    "max_pixels": _COUNT,
    # data
    "structures": Names(),
    "structure_map": Table(optional=True),
    "absent_labels": Table(optional=True),
    "splits": Choice(words=("patient", "column")),
    "val_fraction": Number(within="(0, 1)"),
    "test_fraction": Number(within="[0, 1)"),
    "seed": Number(within="[0, inf)", whole=True),
    "cache_size": _COUNT,
    # networks
    "network_size": Text(optional=True),
    "image_size": _SIZE,
    "patch_size": _COUNT,
    "in_channels": _COUNT,
    "image_mean": _LEVELS,
    "image_std": _LEVELS,
    "drop_path_rate": Number(within="[0, 1)"),
    "predictor_dim": _COUNT,
    "predictor_depth": _COUNT,
    "base_channels": _COUNT,
    "freeze": AnyOf(kinds=(Number(within="[0, inf)", whole=True), Text())),
    **dict.fromkeys(("conditioning", "context_order", "decoder", "encoder_weights", "embedding"), Text()),
    # what is learnt
    "objectives": Names(),
    **dict.fromkeys(("unified", "condition_on_action", "condition_on_geometry", "average_terms", "swap_roles"), Flag()),
    **dict.fromkeys(("flip_embedding", "normalise_pixels", "decay_tokens"), Flag()),
    **dict.fromkeys(("cross_targets", "loss", "targets", "target", "regulariser"), Text()),
    **dict.fromkeys(("cross_weight", "variance_weight", "dice_weight", "bce_weight"), _LEAST_0),
    "pixel_weight": Number(within="[0, inf)", optional=True),
    "regulariser_weight": _SHARE,
    "target_layers": _COUNT,
    # what is shown
    **dict.fromkeys(("crop_scale", "crop_ratio", "zoom", "brightness", "contrast", "gamma", "blur", "noise"), _RANGE),
    **dict.fromkeys(("flip_prob", "base_jitter_prob", "action_jitter_prob", "action_blur_prob"), _SHARE),
    **dict.fromkeys(("action_noise_prob", "crop_prob", "affine_prob", "distortion_prob", "jitter_prob"), _SHARE),
    **dict.fromkeys(("blur_prob", "noise_prob"), _SHARE),
    **dict.fromkeys(("rotate", "shear", "translate", "distortion"), _LEAST_0),
    "min_overlap": Number(within="[0, 1]", optional=True),
    "mask_strategy": Text(),
    "mask_truncation": Text(optional=True),
    "mask_targets": _COUNT_OR_NULL,
    "mask_target_scale": _RANGE_OR_NULL,
    "mask_context_scale": _RANGE_OR_NULL,
    "mask_ratio": Number(within="[0, 1]", optional=True),
    "mask_min_keep": Number(within="[0, inf)", whole=True),
    # optimisation
    **dict.fromkeys(("batch_size", "accumulation_steps", "epochs", "non_finite_limit", "monitor_every"), _COUNT),
    **dict.fromkeys(("global_batch_size", "lr_batch_size", "patience"), _COUNT_OR_NULL),
    **dict.fromkeys(("lr", "lr_end", "warmup_epochs", "weight_decay", "weight_decay_end"), _LEAST_0),
    "layer_decay": Number(within="(0, 1]"),
    "ema": _SHARE,
    "ema_end": _SHARE,
    "schedule_stretch": Number(within="(0, inf)"),
    "clip_norm": Number(within="(0, inf)", optional=True),
    "on_non_finite": Choice(words=("stop", "skip")),
    # the run
    **dict.fromkeys(("val_interval", "save_interval"), _COUNT),
    **dict.fromkeys(("save_steps", "keep_checkpoints"), _COUNT_OR_NULL),
    "save_minutes": Number(within="(0, inf)", optional=True),
    "num_workers": Number(within="[0, inf)", whole=True),
    "amp": Choice(words=("auto", "bfloat16", "none")),
    **dict.fromkeys(("tf32", "checkpoint_activations", "compile_blocks"), Flag()),
    # inference
    "threshold": Number(within="(0, 1)"),
    "keep_largest": AnyOf(kinds=(Choice(words=("auto",)), Flag(), Names())),
    "sliding_window": _COUNT_OR_NULL,
    "seg_type": Choice(words=("auto", "binary", "fractional")),
}
"""By name; a setting that isn't here is held to the kind of its default (`kind_of`)."""

FIXED = frozenset((
    "network_size", "image_size", "patch_size", "in_channels", "image_mean", "image_std", "predictor_dim",
    "predictor_depth", "conditioning", "context_order", "flip_embedding", "decoder", "base_channels", "objectives",
    "unified", "condition_on_action", "condition_on_geometry", "cross_targets", "loss", "targets", "target_layers",
    "swap_roles", "normalise_pixels", "target", "regulariser", "decay_tokens", "structures", "structure_map",
    "absent_labels", "splits", "val_fraction", "test_fraction", "seed", "freeze",
))  # fmt: skip
"""What the state of a run stands for: its networks, its objective, and who is held out."""

FREE = frozenset((
    "bundle_root", "output_dir", "dataset_dir", "datalist", "test_datalist", "cache_dir", "ckpt", "start_from",
    "encoder_ckpt", "encoder_weights", "resume", "verify_cache", "on_error", "device", "rank", "num_workers",
    "keep_checkpoints", "save_interval", "save_steps", "save_minutes", "val_interval", "monitor_every",
    "checkpoint_activations", "compile_blocks", "output", "input",
))  # fmt: skip
"""What no number of a resumed run depends on, or what its data say better."""


def kind_of(name: str, default: Any) -> Kind | None:
    """What a setting must be; None for what is no plain value, such as a component or an expression.

    Args:
        name: the setting.
        default: its value in the bundle's own files.
    """
    if name in KINDS:
        return KINDS[name]
    if isinstance(default, bool):
        return Flag()
    if isinstance(default, (int, float)):
        return Number()
    if isinstance(default, str) and not default.startswith(("$", "@", "%")):
        return Text()
    if isinstance(default, list) and default and all(type(one) in (int, float) for one in default):
        return Numbers(count=len(default))
    if isinstance(default, Mapping) and not default:
        return Table()
    return None
