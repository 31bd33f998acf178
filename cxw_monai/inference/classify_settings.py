"""Settings of the classification bundle's inference."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from cxw_monai.settings import setting
from cxw_monai.settings.common import ReaderSettings
from cxw_monai.settings.types import Count, Lower, Text, Whole

__all__ = ["ClassifySettings"]


class ClassifySettings(ReaderSettings):
    """Classifying films; see `FilmClassifier`."""

    input: Text | None = setting(None, "film, folder or manifest")
    output: Text = setting(lambda data: f"{data['bundle_root']}/output", "folder of the results")
    ckpt: Text = setting(lambda data: f"{data['bundle_root']}/models/model.pt", "file of the classifier")
    formats: list[Annotated[Literal["csv", "json", "heatmap", "sr"], Lower]] = setting(
        ["csv"],
        "what is written beside the table: json (one file a film), heatmap (pictures of where the classifier looks), "
        "sr (DICOM structured reports, of DICOM films)",
    )
    amp: Annotated[Literal["auto", "bfloat16", "none"], Lower] = setting("none", "precision of the forward pass")
    batch_size: Count = setting(4, "films in memory beside the one that is worked on")
    resume: bool = setting(False, "leave out films that have results")
    on_implausible: Annotated[Literal["flag", "skip", "keep"], Lower] = setting(
        "flag", "what is done about films that are no upright frontal chest: flag, skip or keep; of models of chests"
    )
    num_workers: Whole = setting(lambda: min(4, os.cpu_count() or 1), "threads that read films", ge=1)
