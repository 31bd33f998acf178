"""Results of a segmentation run as files that a clinician can open, on the films' own pixel grids.

::

    DIR/measurements.csv              one row a film (:mod:`cxw_monai.inference.measurements`)
    DIR/measurements.json             what each of its columns is, with the definitions of the structures
    DIR/summary.json                  counts over the run
    DIR/<film>/masks/<structure>.png        0 and 255
    DIR/<film>/nifti/<structure>.nii.gz     0 and 1
    DIR/<film>/segmentation.dcm             all structures as one DICOM SEG, for DICOM films
    DIR/<film>/overlay.png

``<film>`` is the film's path below the input without its ending
(:func:`~cxw_monai.io.results.film_names.result_folders`);
nothing of a DICOM header is in any name. The table has each film's name, its path, and size, time and SHA-256 of the
file that the masks were made from: a film whose content is another by now isn't done. PNG, overlay and measurements
have the film upright and whole; that is the stored grid, but for NIfTI and NRRD (and a turned TIFF), whose stored axes
only the NIfTI masks keep.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter, read_rows, write_rows
from cxw_monai.io.files.identity import FileIdentity, file_identity
from cxw_monai.io.radiograph import Radiograph, RadiographError
from cxw_monai.io.results.dicom_seg import SegAlgorithm, checked_seg_type, write_dicom_seg
from cxw_monai.io.results.film_names import film_name, result_folders
from cxw_monai.io.results.folders import is_result_folder, mark_own
from cxw_monai.io.results.mask_files import check_structures, stores_columns_first, write_nifti_masks, write_png_masks
from cxw_monai.io.results.overlay import write_overlay

from .measurements import describe_columns, measure

__all__ = ["FORMATS", "SegmentationWriter"]

FORMATS = ("png", "nifti", "seg", "overlay", "csv")
"""What can be written."""

_TABLE, _COLUMNS, _SUMMARY = "measurements.csv", "measurements.json", "summary.json"
_FILE = ("file", "file_bytes", "file_modified_ns", "file_sha256")
_ABOUT = {
    "image": "the film's name: its path below the input",
    "folder": "the film's folder in the output",
    "file": "path of the file that the masks were made from",
    "file_bytes": "its size",
    "file_modified_ns": "its time of change, in ns since 1970",
    "file_sha256": "SHA-256 of its content",
    "rows": "of the film, upright",
    "columns": "of the film, upright",
    "row_spacing_mm": "distance of the rows' centres in mm; empty where it isn't known",
    "column_spacing_mm": "distance of the columns' centres in mm; empty where it isn't known",
    "spacing_from": "where the spacing is from",
    "seg_note": "why there is no DICOM SEG",
    "implausible": "what speaks against the masks; empty where nothing was found",
}
_RESULTS = ("masks", "nifti", "segmentation.dcm", "overlay.png")
_RESERVED = (_TABLE, _COLUMNS, _SUMMARY, "failures.csv", "settings.json", *_RESULTS)
_logger = logging.getLogger(__name__)


class SegmentationWriter:
    """Writes the masks of one film after the other.

    Every file is whole or not there, and a film's row in the table comes last: after a killed run, the films that have
    a row are done. One process writes to a folder at a time (the caller holds
    an :func:`~cxw_monai.io.results.folders.output_lock`). A film's folder is marked as one of results, so that no
    search for films enters it; what an earlier run left in a marked one goes before the film is written anew.

    Args:
        output_dir: is made.
        structures: S names, in the order of the masks' channels; see
            :func:`~cxw_monai.io.results.mask_files.check_structures`.
        sources: paths of all films of the run.
        root: the folder that the user gave as input, below which films are named; None takes the folder that all films
            share, which is another one when films are added elsewhere.
        formats: any of :data:`FORMATS`. ``seg`` is left out for a film that no DICOM SEG can be made of (not a DICOM,
            no UIDs), with a note in the table and a warning for the first one.
        algorithm: what a SEG names as the maker of the masks.
        resume: keep the rows of a table that is there (of the same columns); otherwise it is begun anew.
        seg_type: how a SEG stores masks, see :func:`~cxw_monai.io.results.dicom_seg.write_dicom_seg`.

    Raises:
        ValueError: unknown formats, bad or equal names, no table format to resume, or a table of other columns.
    """

    def __init__(
        self,
        output_dir: str | PathLike[str],
        structures: Sequence[str],
        sources: Iterable[str | PathLike[str]],
        formats: Sequence[str] = FORMATS,
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
        self.output_dir = Path(output_dir)
        self.structures = check_structures(structures)
        self.formats = tuple(formats)
        self.algorithm = algorithm or SegAlgorithm()
        self.created = datetime.now()
        self.seg_type = checked_seg_type(seg_type)
        paths = sorted({os.path.abspath(path) for path in sources})
        if root is None and paths:
            root = os.path.commonpath([os.path.dirname(path) for path in paths])
        self._names = {path: film_name(path, root) for path in paths}
        self._table = None
        if "csv" in self.formats:
            columns = _ABOUT | describe_columns(self.structures)
            self._table = _Table(self.output_dir / _TABLE, list(columns), resume)
            with atomic_file(self.output_dir / _COLUMNS, "w", encoding="utf-8") as stream:
                json.dump(columns, stream, indent=2)
        self._rows = {} if self._table is None else {row["image"]: row for row in self._table.rows}
        kept = {name: row["folder"] for name, row in self._rows.items()}
        self._folders = result_folders(paths, root, _RESERVED, kept)
        self._replaced: set[str] = set()
        self._found: Counter[str] = Counter()
        self._without_seg: Counter[str] = Counter()
        self._films = self._implausible = 0

    def is_written(self, path: str | PathLike[str]) -> bool:
        """Whether a film is done: it has its row in the table, its file has the content that the row records, and every
        file of the formats is there, but for a SEG that the row says can't be made.

        The film is read for that, since size and time alone don't tell one from another.

        Raises:
            RadiographError: the row is that of another file with this name, from another input.
        """
        row = self._rows.get(self._names.get(os.path.abspath(path), ""))
        if row is None or row["folder"] != self._relative(path).as_posix():
            return False
        try:
            found = file_identity(path)
        except OSError:  # the reader says what is wrong with it
            return False
        if found.sha256 == row["file_sha256"]:
            folder = self.folder(path)
            missing = [name for name in self._files(row["seg_note"]) if not (folder / name).is_file()]
            if missing:
                more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
                _logger.info("done again, since its %s is missing%s: %s", missing[0], more, path)
                self._replaced.add(os.path.abspath(path))
            return not missing
        if row["file"] != film_name(path):
            reason = f"the output has results of another film of this name, {row['file']}"
            raise RadiographError(path, reason, "give another --output")
        _logger.info("done again, since the film is another than before: %s", path)
        self._replaced.add(os.path.abspath(path))
        return False

    def _files(self, seg_note: str) -> list[str]:
        """What a film's folder holds when it is done."""
        files = [f"masks/{name}.png" for name in self.structures if "png" in self.formats]
        files += [f"nifti/{name}.nii.gz" for name in self.structures if "nifti" in self.formats]
        if "seg" in self.formats and not seg_note:
            files.append("segmentation.dcm")
        return files + ["overlay.png"] * ("overlay" in self.formats)

    def leave_out(self, path: str | PathLike[str]) -> None:
        """Take away what there is of the film that was in the place of one that can't be segmented."""
        if (whole := os.path.abspath(path)) in self._replaced:
            self._clear(self._names[whole], self.folder(path))

    def folder(self, path: str | PathLike[str]) -> Path:
        """A film's own folder.

        Raises:
            ValueError: the film isn't one of ``sources``.
        """
        return self.output_dir / self._relative(path)

    def _relative(self, path: str | PathLike[str]) -> PurePosixPath:
        try:
            return self._folders[os.path.abspath(path)]
        except KeyError as error:
            raise ValueError(f"{path} is not one of the {len(self._folders)} sources given to the writer") from error

    def write(
        self,
        radiograph: Radiograph,
        masks: np.ndarray,
        identity: FileIdentity | None = None,
        *,
        doubts: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Write one film's masks.

        Args:
            radiograph: the whole film, as :func:`~cxw_monai.io.read_radiograph` gives it.
            masks: bool ``[S, *source_shape]``, on the grid that the film's file stores.
            identity: of the file when it was read; None takes that which it has now.
            doubts: what speaks against the masks, for the table and the SEG's description.

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
        self._clear(self._names[os.path.abspath(path)], folder)
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
        if self._table is not None:
            self._table.append(row)
        self._films += 1
        self._implausible += bool(doubts)
        self._found.update(name for name, mask in zip(self.structures, upright, strict=True) if mask.any())
        return row

    def _clear(self, name: str, folder: Path) -> None:
        """Leave nothing of an earlier run in a film's folder, and no row of it in the table."""
        if self._table is not None:
            self._table.drop(name)
        if is_result_folder(folder):
            for pattern in ("masks/*.png", "nifti/*.nii.gz", "segmentation.dcm", "overlay.png"):
                for file in folder.glob(pattern):
                    file.unlink()

    def _write_seg(self, file: Path, path: str, masks: np.ndarray, doubts: Sequence[str]) -> str:
        """Write the SEG; why there is none, in words, where it can't be made."""
        algorithm = self.algorithm.doubted() if doubts else self.algorithm
        try:
            how: dict[str, Any] = {"created": self.created, "algorithm": algorithm, "seg_type": self.seg_type}
            write_dicom_seg(file, path, masks, self.structures, **how)
        except RadiographError as error:
            if error.reason not in self._without_seg:  # the summary counts the others
                _logger.warning("no DICOM SEG of %s", error)
            self._without_seg[error.reason] += 1
            return error.reason
        return ""

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
            "image": self._names[os.path.abspath(meta["path"])],
            "folder": self._relative(meta["path"]).as_posix(),
            **dict(zip(_FILE, (film_name(meta["path"]), *identity), strict=True)),
            "rows": upright.shape[1],
            "columns": upright.shape[2],
            "row_spacing_mm": spacing[0] if spacing else None,
            "column_spacing_mm": spacing[1] if spacing else None,
            "spacing_from": (sources or ["header of the file, magnification unknown"])[0] if spacing else "unknown",
            "seg_note": note,
        }
        return about | measure(upright, self.structures, spacing)

    def finish(self) -> dict[str, Any]:
        """Write ``summary.json``: the films of this run, in how many each structure was found, SEGs left out and why,
        implausible films.

        Returns:
            The summary.
        """
        summary = {
            "films": self._films,
            "found": {name: self._found[name] for name in self.structures},
            "without_seg": dict(self._without_seg),
            "implausible": self._implausible,
        }
        with atomic_file(self.output_dir / _SUMMARY, "w", encoding="utf-8") as stream:
            json.dump(summary, stream, indent=2)
        without = sum(self._without_seg.values())
        _logger.info("%d films written to %s, %d without a DICOM SEG", self._films, self.output_dir, without)
        if self._implausible:
            where = f"column 'implausible' of {_TABLE}" if self._table is not None else "the lines above"
            _logger.warning("%d of them look implausible: see %s", self._implausible, where)
        return summary


class _Table:
    """A CSV that grows by whole rows; one that was cut off at the end is dropped when the run is resumed.

    Attributes:
        rows: those that were kept.
    """

    def __init__(self, path: Path, columns: Sequence[str], resume: bool) -> None:
        self.path, self.columns = path, list(columns)
        kept = self._rows_there() if resume and path.is_file() else []
        self.rows = list({row["image"]: row for row in kept}.values())
        self._write(self.rows)

    def _rows_there(self) -> list[dict[str, str]]:
        text = self.path.read_bytes().decode("utf-8", "replace")
        whole = text[: text.rfind("\n") + 1]
        if next(csv.reader(io.StringIO(whole, newline="")), []) != self.columns:
            raise ValueError(f"{self.path} has other columns; give another output_dir, or don't resume")
        return read_rows(io.StringIO(whole, newline=""))

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        self._images = {row["image"] for row in rows}
        with atomic_file(self.path, "w", newline="", encoding="utf-8") as stream:
            write_rows(stream, self.columns, rows)

    def drop(self, image: str) -> None:
        """Leave out a film's row, where it has one."""
        if image in self._images:
            self._write([row for row in self._rows_there() if row["image"] != image])

    def append(self, row: dict[str, Any]) -> None:
        """Add a row, on the disk when this returns."""
        text = io.StringIO()
        cells = {name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in row.items()}
        CsvWriter(text).writerow(cells[name] for name in self.columns)
        with open(self.path, "ab") as stream:
            stream.write(text.getvalue().encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._images.add(row["image"])
