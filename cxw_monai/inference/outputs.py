"""Results of a segmentation run as files that a clinician can open, on the films' own pixel grids.

::

    DIR/measurements.csv              one row a film (:mod:`cxw_monai.inference.measurements`)
    DIR/measurements.json             what each of its columns is, with the definitions of the structures
    DIR/summary.json                  counts over the run
    DIR/<film>/masks/<structure>.png        0 and 255
    DIR/<film>/nifti/<structure>.nii.gz     0 and 1
    DIR/<film>/segmentation.dcm             all structures as one DICOM SEG, for DICOM films
    DIR/<film>/measurements.dcm             diameters and cardiothoracic ratio as one DICOM SR, for DICOM films
    DIR/<film>/overlay.png

``<film>`` is the film's path below the input without its ending
(:func:`~cxw_monai.io.results.film_names.result_folders`);
nothing of a DICOM header is in any name. The table has each film's name, its path, and size, time and SHA-256 of the
file that the masks were made from: a film whose content is another by now isn't done. PNG, overlay and measurements
have the film upright and whole; that is the stored grid, but for NIfTI and NRRD (and a turned TIFF), whose stored axes
only the NIfTI masks keep.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.identity import FileIdentity, file_identity
from cxw_monai.io.radiograph import Radiograph, RadiographError
from cxw_monai.io.results.dicom_seg import SegAlgorithm, checked_seg_type, write_dicom_seg
from cxw_monai.io.results.dicom_sr import Diameter, write_dicom_sr
from cxw_monai.io.results.folders import mark_own
from cxw_monai.io.results.mask_files import check_structures, stores_columns_first, write_nifti_masks, write_png_masks
from cxw_monai.io.results.overlay import write_overlay

from .film_results import FILE_COLUMNS, FilmResults
from .measurements import describe_columns, diameter_lines, measure

__all__ = ["DEFAULT_FORMATS", "FORMATS", "SegmentationWriter"]

FORMATS = ("png", "nifti", "seg", "sr", "overlay", "csv")
"""What can be written."""
DEFAULT_FORMATS = tuple(name for name in FORMATS if name != "sr")
"""What is written where nothing is said."""

_TABLE, _COLUMNS, _SUMMARY = "measurements.csv", "measurements.json", "summary.json"
_ABOUT = {
    **FILE_COLUMNS,
    "rows": "of the film, upright",
    "columns": "of the film, upright",
    "row_spacing_mm": "distance of the rows' centres in mm; empty where it isn't known",
    "column_spacing_mm": "distance of the columns' centres in mm; empty where it isn't known",
    "spacing_from": "where the spacing is from",
    "seg_note": "why there is no DICOM SEG",
    "sr_note": "why there is no DICOM SR",
    "implausible": "what speaks against the masks; empty where nothing was found",
}
_RESULTS = ("masks", "nifti", "segmentation.dcm", "measurements.dcm", "overlay.png")
_RESERVED = (_TABLE, _COLUMNS, _SUMMARY, "failures.csv", "settings.json", *_RESULTS)
_logger = logging.getLogger(__name__)


class SegmentationWriter(FilmResults):
    """Writes the masks of one film after the other.

    Every file is whole or not there; what is done is known as `FilmResults` says. A film's folder is marked as one of
    results, so that no search for films enters it; what an earlier run left in a marked one goes before the film is
    written anew.

    Args:
        output_dir: is made.
        structures: S names, in the order of the masks' channels; see
            :func:`~cxw_monai.io.results.mask_files.check_structures`.
        sources: paths of all films of the run.
        root: the folder that the user gave as input, below which films are named; None takes the folder that all films
            share, which is another one when films are added elsewhere.
        formats: any of :data:`FORMATS`. ``seg`` is left out for a film that no DICOM SEG can be made of (not a DICOM,
            no UIDs), ``sr`` for such a film and for one without a heart, with a note in the table and a warning for the
            first one.
        algorithm: what SEG and SR name as the maker of the masks.
        resume: keep the rows of a table that is there (of the same columns); otherwise it is begun anew.
        seg_type: how a SEG stores masks, see :func:`~cxw_monai.io.results.dicom_seg.write_dicom_seg`.

    Raises:
        ValueError: unknown formats, bad or equal names, no table format to resume, or a table of other columns.
    """

    PATTERNS = ("masks/*.png", "nifti/*.nii.gz", "segmentation.dcm", "measurements.dcm", "overlay.png")

    def __init__(
        self,
        output_dir: str | PathLike[str],
        structures: Sequence[str],
        sources: Iterable[str | PathLike[str]],
        formats: Sequence[str] = DEFAULT_FORMATS,
        *,
        root: str | PathLike[str] | None = None,
        algorithm: SegAlgorithm | None = None,
        resume: bool = False,
        seg_type: str = "auto",
    ) -> None:
        unknown = sorted(set(formats) - set(FORMATS))
        if unknown or not formats:
            raise ValueError(f"formats must be some of {FORMATS}, got {tuple(formats)}")
        if resume and "csv" not in formats:
            raise ValueError(f"resume needs the format 'csv', got {tuple(formats)}")
        self.structures = check_structures(structures)
        self.formats = tuple(formats)
        self.algorithm = algorithm or SegAlgorithm()
        self.created = datetime.now()
        self.seg_type = checked_seg_type(seg_type)
        expected = {_expected(name): f"the Dice that the network expects of {name}" for name in self.structures}
        columns = _ABOUT | expected | describe_columns(self.structures)
        table = _TABLE if "csv" in self.formats else None
        super().__init__(output_dir, sources, root, table, list(columns), _RESERVED, resume)
        if table is not None:
            with atomic_file(self.output_dir / _COLUMNS, "w", encoding="utf-8") as stream:
                json.dump(columns, stream, indent=2)
        self._found: Counter[str] = Counter()
        self._without_seg: Counter[str] = Counter()
        self._without_sr: Counter[str] = Counter()
        self._films = self._implausible = 0

    def files(self, row: Mapping[str, str]) -> list[str]:
        """What a film's folder holds when it is done; no SEG or SR where the row says that none can be made."""
        files = [f"masks/{name}.png" for name in self.structures if "png" in self.formats]
        files += [f"nifti/{name}.nii.gz" for name in self.structures if "nifti" in self.formats]
        if "seg" in self.formats and not row["seg_note"]:
            files.append("segmentation.dcm")
        if "sr" in self.formats and not row["sr_note"]:
            files.append("measurements.dcm")
        return files + ["overlay.png"] * ("overlay" in self.formats)

    def write(
        self,
        radiograph: Radiograph,
        masks: np.ndarray,
        identity: FileIdentity | None = None,
        *,
        doubts: Sequence[str] = (),
        expected_dice: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Write one film's masks.

        Args:
            radiograph: the whole film, as :func:`~cxw_monai.io.read_radiograph` gives it.
            masks: bool ``[S, *source_shape]``, on the grid that the film's file stores.
            identity: of the file when it was read; None takes that which it has now.
            doubts: what speaks against the masks, for the table and the SEG's description.
            expected_dice: ``[S]``, for the table; None and NaN leave cells empty.

        Returns:
            The film's row of the table.

        Raises:
            ValueError: masks of another form, or a film that isn't one of the sources.
            OSError: a file can't be written.
        """
        path, pixel_map = radiograph.meta["path"], radiograph.meta["pixel_map"]
        folder = self.folder(path)
        expected = (len(self.structures), *pixel_map.source_shape)
        if masks.dtype != bool or masks.shape != expected:
            raise ValueError(f"{path}: masks must be bool {list(expected)}, got {masks.dtype} of shape {masks.shape}")
        upright = pixel_map.turn(masks)  # [S, H, W]
        spacing = radiograph.meta["spacing_mm"]
        columns_first = stores_columns_first(path)
        identity = identity or file_identity(path)
        self.clear(path)
        folder.mkdir(parents=True, exist_ok=True)
        mark_own(folder)
        if "png" in self.formats:
            write_png_masks(folder / "masks", upright, self.structures)
        if "nifti" in self.formats:
            placed = masks if columns_first else upright
            write_nifti_masks(folder / "nifti", placed, self.structures, source=path, spacing_mm=spacing)
        if "overlay" in self.formats:
            write_overlay(folder / "overlay.png", radiograph.array[0], upright, self.structures, spacing_mm=spacing)
        note = self._write_seg(folder / "segmentation.dcm", path, masks, doubts) if "seg" in self.formats else ""
        row = self._row(radiograph, identity, upright, spacing, note) | {"implausible": "; ".join(doubts)}
        values = np.full(len(masks), np.nan) if expected_dice is None else expected_dice
        cells = (None if np.isnan(value) else float(value) for value in values)
        row |= dict(zip(map(_expected, self.structures), cells, strict=True))
        if "sr" in self.formats:
            row["sr_note"] = self._write_sr(folder / "measurements.dcm", radiograph, upright, row)
        self.append(row)
        self._films += 1
        self._implausible += bool(doubts)
        self._found.update(name for name, mask in zip(self.structures, upright, strict=True) if mask.any())
        return row

    def _write_seg(self, file: Path, path: str, masks: np.ndarray, doubts: Sequence[str]) -> str:
        """Write the SEG; why there is none, in words, where it can't be made."""
        algorithm = self.algorithm.doubted() if doubts else self.algorithm
        try:
            how: dict[str, Any] = {"created": self.created, "algorithm": algorithm, "seg_type": self.seg_type}
            write_dicom_seg(file, path, masks, self.structures, **how)
        except RadiographError as error:
            return self._left_out("SEG", self._without_seg, error)
        return ""

    def _write_sr(self, file: Path, radiograph: Radiograph, upright: np.ndarray, row: Mapping[str, Any]) -> str:
        """Write the SR of what the row has; why there is none, in words, where it can't be made."""
        path, turns = radiograph.meta["path"], radiograph.meta["pixel_map"].turns()
        unit = "px" if radiograph.meta["spacing_mm"] is None else "mm"
        diameters = [
            Diameter(name, turns.to_source(line).tolist(), float(row[f"{name}_diameter_{unit}"]), unit)
            for name, line in diameter_lines(upright, self.structures).items()
        ]
        try:
            if row["heart_diameter_px"] is None:
                reason = "no heart was found, whose diameter is what a DICOM SR reports"
                raise RadiographError(path, reason, "look at the film, or leave out the format 'sr'")
            names = (name for name in self.structures if row[f"area_px_{name}"])
            areas = {name: float(row[f"area_{'px' if unit == 'px' else 'mm2'}_{name}"]) for name in names}
            how: dict[str, Any] = {"created": self.created, "algorithm": self.algorithm, "areas": areas}
            write_dicom_sr(file, path, diameters, row["cardiothoracic_ratio"], doubtful=bool(row["implausible"]), **how)
        except RadiographError as error:
            return self._left_out("SR", self._without_sr, error)
        return ""

    def _left_out(self, kind: str, without: Counter[str], error: RadiographError) -> str:
        """Count a film without a DICOM result, and warn of the first one of its reason; the reason."""
        if error.reason not in without:  # the summary counts the others
            _logger.warning("no DICOM %s of %s", kind, error)
        without[error.reason] += 1
        return error.reason

    def _row(
        self,
        radiograph: Radiograph,
        identity: FileIdentity,
        upright: np.ndarray,
        spacing: tuple[float, float] | None,
        note: str,
    ) -> dict[str, Any]:
        meta = radiograph.meta
        sources = [step.partition(": ")[2] for step in meta["steps"] if step.startswith("spacing: ")]
        about = {
            **self.file_cells(radiograph, identity),
            "rows": upright.shape[1],
            "columns": upright.shape[2],
            "row_spacing_mm": spacing[0] if spacing else None,
            "column_spacing_mm": spacing[1] if spacing else None,
            "spacing_from": (sources or ["header of the file, magnification unknown"])[0] if spacing else "unknown",
            "seg_note": note,
            "sr_note": "",
        }
        return about | measure(upright, self.structures, spacing)

    def finish(self) -> dict[str, Any]:
        """Write ``summary.json``: the films of this run, in how many each structure was found, SEGs and SRs left out
        and why, implausible films.

        Returns:
            The summary.
        """
        summary = {
            "films": self._films,
            "found": {name: self._found[name] for name in self.structures},
            "without_seg": dict(self._without_seg),
            "without_sr": dict(self._without_sr),
            "implausible": self._implausible,
        }
        with atomic_file(self.output_dir / _SUMMARY, "w", encoding="utf-8") as stream:
            json.dump(summary, stream, indent=2)
        counts = self._films, self.output_dir, sum(self._without_seg.values()), sum(self._without_sr.values())
        _logger.info("%d films written to %s, %d without a DICOM SEG, %d without an SR", *counts)
        if self._implausible:
            where = f"column 'implausible' of {_TABLE}" if self._table is not None else "the lines above"
            _logger.warning("%d of them look implausible: see %s", self._implausible, where)
        return summary


def _expected(structure: str) -> str:
    """Column of a structure's expected Dice."""
    return f"expected_dice_{structure}"
