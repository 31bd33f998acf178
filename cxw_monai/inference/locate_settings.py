"""Settings of the landmark bundle's inference."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from cxw_monai.settings import setting
from cxw_monai.settings.common import ReaderSettings
from cxw_monai.settings.types import Count, Lower, Share, Text, Whole

__all__ = ["LocateSettings"]


class LocateSettings(ReaderSettings):
    """Locating the landmarks of films; see `FilmLocator`."""

    input: Text | None = setting(None, "film, folder or manifest")
    output: Text = setting(lambda data: f"{data['bundle_root']}/output", "folder of the results")
    ckpt: Text = setting(lambda data: f"{data['bundle_root']}/models/model.pt", "file of the landmark network")
    formats: list[Annotated[Literal["csv", "json", "overlay", "sr"], Lower]] = setting(
        ["csv", "overlay"],
        "what is written beside the table: json (one file a film), overlay (a picture of each film), sr (DICOM "
        "structured reports, of DICOM films)",
    )
    min_confidence: Share = setting(0.1, "confidence below which a landmark counts as not on the film, 0 to 1")
    amp: Annotated[Literal["auto", "bfloat16", "none"], Lower] = setting("none", "precision of the forward pass")
    batch_size: Count = setting(4, "films in memory beside the one that is worked on")
    resume: bool = setting(False, "leave out films that have results")
    on_implausible: Annotated[Literal["flag", "skip", "keep"], Lower] = setting(
        "flag", "what is done about films that are no upright frontal chest: flag, skip or keep; of models of chests"
    )
    num_workers: Whole = setting(lambda: min(4, os.cpu_count() or 1), "threads that read films", ge=1)
