"""A small classifier with random weights in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from cxw_monai.weights.classifier import classifier_settings, new_classifier
from cxw_monai.weights.kinds import save_network

__all__ = ["CLASSES", "POINTS", "save_classifier"]

CLASSES = ("edema", "mass")
POINTS = {"edema": {"youden": 0.0, "sensitivity_90": 1.5}, "mass": {}}


def save_classifier(path: Path) -> Path:
    """Of `CLASSES`, with an attentive head, temperatures, and operating points that are always and never reached."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = classifier_settings(CLASSES, head="attentive", image_size=32, size="tiny")
        settings = replace(settings, temperatures=(2.0, 0.5), operating_points=POINTS)
        save_network(new_classifier(settings), settings, path)
    return path
