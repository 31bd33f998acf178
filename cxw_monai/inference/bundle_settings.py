"""Settings of the segmentation bundle's inference."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Annotated, Literal

from cxw_monai.settings import setting
from cxw_monai.settings.common import ReaderSettings
from cxw_monai.settings.types import Count, Lower, Names, Number, Text, Whole

from .settings import SegmentSettings

__all__ = ["InferenceSettings", "segment_settings"]


class InferenceSettings(ReaderSettings):
    """Segmenting films; see `SegmentSettings`."""

    input: Text | None = setting(None, "film, folder or manifest")
    output: Text = setting(lambda data: f"{data['bundle_root']}/output", "folder of the results")
    ckpt: Text = setting(lambda data: f"{data['bundle_root']}/models/model.pt", "file of the segmenter")
    formats: Names = setting(["png", "nifti", "seg", "overlay", "csv"], "what is written")
    threshold: Number = setting(0.5, "probability from which on a pixel is inside, in (0, 1)", gt=0, lt=1)
    keep_largest: Annotated[Literal["auto"], Lower] | bool | Names = setting(
        "auto", "structures whose largest part alone is kept: auto, true, false or names", union_mode="left_to_right"
    )
    seg_type: Annotated[Literal["auto", "binary", "fractional"], Lower] = setting("auto", "how a DICOM SEG has masks")
    sliding_window: Count | None = setting(None, "side of the windows in px; null for whole films")
    amp: Annotated[Literal["auto", "bfloat16", "none"], Lower] = setting("auto", "precision of the forward pass")
    batch_size: Count = setting(4, "films in memory beside the one that is worked on")
    num_workers: Whole = setting(lambda: min(4, os.cpu_count() or 1), "threads that read films")
    resume: bool = setting(False, "leave out films that have results")
    on_implausible: Text = setting("flag", "what is done about masks that can't be right: flag, skip or keep")
    augmented: bool = setting(False, "mean over the film as it is, mirrored, nearer and further, in 4 times the time")


def segment_settings(settings: InferenceSettings) -> SegmentSettings:
    """What `FilmSegmenter` takes of the settings."""
    return SegmentSettings(**{field.name: getattr(settings, field.name) for field in fields(SegmentSettings)})
