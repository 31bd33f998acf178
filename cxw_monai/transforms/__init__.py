"""Whole films, world-model views, domain perturbations, token masks, border removal."""

from __future__ import annotations

from .borders import RemoveBorders, RemoveBordersd, find_content_box
from .local_crops import RandLocalCropsd
from .masks import TokenMasks, TokenMaskSampler
from .perturb import IDENTITY_ACTION, ActionSampler, Perturbd, RandActiond, perturb
from .view_crops import BaseJitter, crop_views
from .views import RandWorldViewPaird, sample_base_jitter, sample_crop_pair

__all__ = [
    "IDENTITY_ACTION",
    "ActionSampler",
    "BaseJitter",
    "Perturbd",
    "RandActiond",
    "RandLocalCropsd",
    "RandWorldViewPaird",
    "RemoveBorders",
    "RemoveBordersd",
    "TokenMaskSampler",
    "TokenMasks",
    "crop_views",
    "find_content_box",
    "perturb",
    "sample_base_jitter",
    "sample_crop_pair",
]
