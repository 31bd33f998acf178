"""Maps of films with boxes, and what they score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cxw_monai
from cxw_monai.data.manifest import read_datalist
from cxw_monai.inference.api import ClassificationModel, SegmentationModel
from cxw_monai.inference.heat_maps import occlusion_maps
from cxw_monai.io import Radiograph, read_radiograph
from cxw_monai.metrics.localisation import Box, LocalisationScores, MapFinding, found_in, localisation_scores
from cxw_monai.networks import RadiographClassifier
from cxw_monai.networks.heads import AttentiveHead
from cxw_monai.retrieval.regions import film_box

__all__ = ["MAPS", "BoxedFilm", "MapOf", "Row", "boxed_films", "localise"]

MapOf = Callable[[Radiograph, str], np.ndarray]
"""A map `[rows, columns]` over an upright film, higher where a finding of this name is."""


@dataclass(frozen=True)
class BoxedFilm:
    """A film with boxes of one finding, in fractions of the upright film."""

    path: str
    patient: str
    finding: str
    boxes: list[Box]


def boxed_films(
    datalist: Path, section: str, findings: Sequence[str], stems: set[str] | None = None
) -> list[BoxedFilm]:
    """The films of a manifest that have boxes, once for each finding of the classifier.

    Args:
        datalist: with `bbox_xywh`.
        section: split, or `all`.
        findings: names of a classifier's classes.
        stems: names of the files to take, without ending; None for all.

    Raises:
        ValueError: there is none.
    """
    found = []
    for item in read_datalist(datalist, section=section):
        boxes = item.get("bbox_xywh") or []
        if not boxes or (stems is not None and Path(item["image"]).stem not in stems):
            continue
        pixel_map = read_radiograph(item["image"], min_size=1).meta["pixel_map"]
        for finding in findings:
            own = [film_box((x, y, w, h), pixel_map) for name, x, y, w, h in boxes if name == finding]
            if own:
                found.append(BoxedFilm(item["image"], str(item.get("patient_id") or item["image"]), finding, own))
    if not found:
        raise ValueError(f"{datalist}: no film of {section!r} has a box of {', '.join(findings)}; give another one")
    return found


def _attention(network: nn.Module, image: Tensor) -> np.ndarray:
    if not isinstance(network, RadiographClassifier) or not isinstance(network.head, AttentiveHead):
        raise ValueError("the classifier's head has no attention; give --maps occlusion")
    return network.attention(image)[0].float().cpu().numpy()


MAPS: dict[str, Callable[[nn.Module, Tensor], np.ndarray]] = {"attention": _attention, "occlusion": occlusion_maps}
"""Maps `[L, rows, columns]` of a classifier's classes, of an image `[1, 1, h, w]`."""


def map_of(model: ClassificationModel, name: str) -> MapOf:
    """One of `MAPS` of a classifier's film."""

    def values(film: Radiograph, finding: str) -> np.ndarray:
        image = model.predictor.prepare(film.array)[None]
        with torch.inference_mode():
            return MAPS[name](model.network, image)[list(model.classes).index(finding)]

    return values


class Row(NamedTuple):
    """Scores of one map on the films of one finding."""

    finding: str
    source: str
    scores: LocalisationScores


def localise(films: Sequence[BoxedFilm], maps: Mapping[str, MapOf], share: float = 0.5) -> list[Row]:
    """Scores of maps, and of the lungs' centres, on films with boxes.

    Args:
        films: of one finding or of several, which are scored apart.
        maps: by name; any map of a film will do.
        share: of a map's maximum, above which its boxes lie.
    """
    segmenter = cxw_monai.load("chexworld_segmentation")
    assert isinstance(segmenter, SegmentationModel)
    found: dict[str, list[list[MapFinding]]] = {}
    for film in films:
        radiograph = read_radiograph(film.path, min_size=1)
        lungs = _lung_masks(segmenter, radiograph)
        for name, values in maps.items():
            own = values(radiograph, film.finding)
            found.setdefault(name, []).append([found_in(own, share)])
            found.setdefault(f"{name} within the lungs", []).append([found_in(_within(own, lungs), share)])
        found.setdefault("centre of a lung", []).append(_centres(lungs))
    rows = []
    for finding in dict.fromkeys(film.finding for film in films):
        own = [place for place, film in enumerate(films) if film.finding == finding]
        for name, all_found in found.items():
            parts = [[each[place] for place in own] for each in (all_found, [film.boxes for film in films])]
            patients = [films[place].patient for place in own]
            rows.append(Row(finding, name, localisation_scores(parts[0], parts[1], patients)))
    return rows


def _lung_masks(segmenter: SegmentationModel, film: Radiograph) -> np.ndarray:
    """The lungs of a film, bool `[0 to 2, h, w]` over the upright film."""
    masks = segmenter.predictor.probabilities(film.array) >= 0.5
    lungs = [
        mask for name, mask in zip(segmenter.structures, masks, strict=True) if name in ("lung_left", "lung_right")
    ]
    return np.stack([mask for mask in lungs if mask.any()] or [np.ones_like(masks[0])])


def _within(values: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """A map from its minimum up, 0 outside the lungs."""
    size = (lungs.shape[1], lungs.shape[2])
    fine = F.interpolate(torch.from_numpy(np.asarray(values, np.float32))[None, None], size, mode="bilinear")[0, 0]
    return np.where(lungs.any(axis=0), fine.numpy() - float(fine.min()), 0)


def _centres(lungs: np.ndarray) -> list[MapFinding]:
    """The centre and the box of each lung; which of them holds the finding isn't known, so their mean counts."""
    height, width = lungs.shape[1:]
    found = []
    for mask in lungs:
        rows, columns = np.nonzero(mask)
        box = (columns.min() / width, rows.min() / height, np.ptp(columns) / width, np.ptp(rows) / height)
        point = (columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height
        found.append(MapFinding((float(point[0]), float(point[1])), [tuple(map(float, box))]))  # type: ignore[list-item]
    return found
