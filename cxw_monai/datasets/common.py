"""What all preparers share: finding the published files, holding out patients, reading sizes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pydicom
from PIL import Image
from tqdm import tqdm

from cxw_monai.data.manifest import read_records
from cxw_monai.data.schema import Record
from cxw_monai.data.splits import split_by_patient
from cxw_monai.data.tables import csv_rows
from cxw_monai.io.formats.pictures import refuse_unless_file
from cxw_monai.io.radiograph import RadiographError

__all__ = [
    "Job",
    "LeftOut",
    "decoding",
    "image_size",
    "index_images",
    "listed_records",
    "sex_letter",
    "view_name",
    "years",
]

_SHOWN = 5  # missing files named in an error
_VIEWS = {
    **dict.fromkeys(("LATERAL", "LL", "RL", "L", "LEFT LATERAL", "RIGHT LATERAL"), "LAT"),
    **dict.fromkeys(("POSTERO ANTERIOR", "POSTEROANTERIOR", "POSTERIOR ANTERIOR"), "PA"),
    **dict.fromkeys(("ANTERO POSTERIOR", "ANTEROPOSTERIOR", "ANTERIOR POSTERIOR"), "AP"),
}
_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 1 / 52.18, "D": 1 / 365.25}
_OLDEST = 120  # years

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


class LeftOut(NamedTuple):
    """A file that isn't in the manifest; ``what`` is ``film``, ``mask`` or ``missing film``."""

    what: str
    path: str
    reason: str
    remedy: str


@dataclass
class Job:
    """One preparation: where from, where to, and the settings that all data sets share.

    Attributes:
        root: the published folder; never written to.
        out: the output folder.
        url: where the set is published, for errors.
        seed: of splits made here.
        validation: share of the training patients held out where there is no official validation split.
        test: share of all patients held out where there is no official test split.
        allow_missing: leave out records whose image isn't there, and count them, instead of stopping.
        workers: threads that look for files and write masks.
        progress: show progress bars.
        left_out: films and masks that are damaged, and films that aren't there.
        notes: what was decided on the way, for the summary.
        about: facts of this run where they aren't those of the data set (``split``, ``url``, ``terms``, ``makes``).
    """

    root: Path
    out: Path
    url: str = ""
    seed: int = 0
    validation: float = 0.1
    test: float = 0.2
    allow_missing: bool = False
    workers: int = 8
    progress: bool = False
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Adds a line to the summary."""
        self.notes.append(text)

    def leave_out(self, error: RadiographError, what: str = "film") -> None:
        """Notes a damaged film or mask; :meth:`kept` drops it."""
        if not any(each.path == error.path for each in self.left_out):
            self.left_out.append(LeftOut(what, error.path, error.reason, error.remedy))

    def kept(self, records: Sequence[Record]) -> list[Record]:
        """The records whose film wasn't left out, without masks that were."""
        gone = {each.path for each in self.left_out}
        if not gone:
            return list(records)
        kept = [record for record in records if record.image not in gone]
        for record in kept:
            record.masks = {name: path for name, path in record.masks.items() if path not in gone}
        return kept

    def refuse_ruin(self, records: Sequence[Record]) -> None:
        """Raise ValueError where more films are damaged than are left in ``records``: no single damaged file."""
        damaged = [each for each in self.left_out if each.what == "film"]
        if len(damaged) > len(records):
            first, count = damaged[0], f"{len(damaged)} of {len(records) + len(damaged)}"
            raise ValueError(
                f"{self.root}: {count} films can't be read ({first.path}: {first.reason}, ...), too many for single "
                f"damaged files; check the folder, its disk and permissions, or get the set again from {self.url}"
            )

    def each(
        self, items: Sequence[_Item], do: Callable[[_Item], _Found], what: str
    ) -> Iterator[tuple[_Item, _Found | RadiographError]]:
        """Do something with each item, several at a time; in their order.

        Args:
            items: what to work on.
            do: raises RadiographError of a damaged file.
            what: names the progress bar.

        Yields:
            The item with the result, or with that error.
        """

        def attempt(item: _Item) -> _Found | RadiographError:
            try:
                return do(item)
            except RadiographError as error:
                return error

        with ThreadPoolExecutor(self.workers) as pool:
            results = pool.map(attempt, items)
            bar = tqdm(results, what, len(items), leave=False, disable=not self.progress)
            yield from zip(items, bar, strict=True)

    def readable(
        self, records: Sequence[Record], read: Callable[[Record], _Found], what: str = "headers"
    ) -> list[tuple[Record, _Found]]:
        """Read something of each film, several at a time (:meth:`each`); films that can't be read are left out.

        Returns:
            The readable ones with what was read; :meth:`kept` gives the records without the others.
        """
        pairs = []
        for record, result in self.each(records, read, what):
            if isinstance(result, RadiographError):
                self.leave_out(result)
            else:
                pairs.append((record, result))
        return pairs

    def sized(
        self, records: Sequence[Record], wanted: Callable[[Record], object] = lambda record: True
    ) -> list[Record]:
        """Sets ``width`` and ``height`` of the ``wanted`` records from their images' headers; films without a readable
        header are left out.

        Raises:
            ValueError: more than half of the films are damaged.
        """
        chosen = [record for record in records if wanted(record)]
        for record, size in self.readable(chosen, lambda record: image_size(record.image)):
            record.width, record.height = size
        kept = self.kept(records)
        self.refuse_ruin(kept)
        return kept

    def find(self, *names: str) -> Path:
        """The first of these files or folders (below ``root``) that is there.

        Raises:
            FileNotFoundError: none is; names them and where they are published.
        """
        for name in names:
            if (self.root / name).exists():
                return self.root / name
        wanted = " or ".join(names)
        raise FileNotFoundError(f"{self.root}: no {wanted}; it is part of the set published at {self.url}")

    def rows(self, path: Path, columns: Iterable[str] = ()) -> Iterator[dict[str, str]]:
        """The rows of a CSV, plain or gzipped.

        Raises:
            ValueError: one of ``columns`` isn't there, or the file is no UTF-8 CSV.
        """
        for _, names, cells in csv_rows(path, tuple(columns), published=self.url or "its source"):
            yield dict(zip(names, cells, strict=True))

    def present(self, records: Sequence[Record]) -> list[Record]:
        """The records whose image is there.

        Raises:
            FileNotFoundError: some are missing and ``allow_missing`` isn't set; they are counted, the first named.
        """
        there = [found for _, found in self.each(records, lambda record: os.path.isfile(record.image), "images")]
        missing = [record.image for record, found in zip(records, there, strict=True) if not found]
        if missing and not self.allow_missing:
            named = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise FileNotFoundError(
                f"{self.root}: {len(missing)} of {len(records)} images don't exist ({named}); "
                f"complete the download from {self.url}, or leave them out with --allow-missing"
            )
        remedy = f"complete the download from {self.url}"
        self.left_out += [LeftOut("missing film", path, "listed, but not there", remedy) for path in missing]
        return [record for record, found in zip(records, there, strict=True) if found]

    def hold_out(self, records: Iterable[Record]) -> None:
        """Moves a share of the training patients to validation, whole patients, by their ids and the seed alone."""
        _hold_out([record for record in records if record.split == "training"], self.validation, self.seed)

    def split(self, records: Sequence[Record], test: float | None = None, validation: float | None = None) -> None:
        """Splits by patient: ``test`` of all patients first, then ``validation`` of those that are left.

        Args:
            records: of the whole data set.
            test: share of all patients; the job's by default.
            validation: share of the patients that aren't test; the job's by default.

        Raises:
            ValueError: fewer patients than splits.
        """
        for record in records:
            record.split = "training"
        _hold_out(records, self.test if test is None else test, self.seed, "test")
        rest = [record for record in records if record.split == "training"]
        _hold_out(rest, self.validation if validation is None else validation, self.seed)


@contextmanager
def decoding(path: str | os.PathLike[str], reason: str, remedy: str) -> Iterator[None]:
    """Turn whatever a parser raises of a damaged file into a RadiographError; its type is added to ``reason``."""
    try:
        yield
    except Exception as error:
        raise RadiographError(path, f"{reason} ({type(error).__name__})", remedy) from error


def _hold_out(records: Iterable[Record], fraction: float, seed: int, split: str = "validation") -> None:
    """Moves a share of the patients to another split (:func:`cxw_monai.data.splits.split_by_patient`); 0 for none."""
    if fraction == 0:
        return
    items = [{"image": record.image, "patient_id": record.patient_id, "record": record} for record in records]
    for item in split_by_patient(items, fraction, seed)[1]:
        item["record"].split = split


def listed_records(manifest: Path) -> Iterator[Record]:
    """The records of a manifest, with the paths of images and masks absolute."""
    base = Path(os.path.abspath(manifest)).parent
    for record in read_records(manifest):
        record.image = os.path.abspath(base / record.image)
        record.masks = {structure: os.path.abspath(base / path) for structure, path in record.masks.items()}
        yield record


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """``(width, height)`` of a stored image from its header, DICOM or anything Pillow knows.

    Raises:
        RadiographError: the header can't be read.
    """
    refuse_unless_file(path)
    with decoding(path, "its header cannot be read", "copy it again from its source"):
        if str(path).lower().endswith((".dcm", ".dicom")):
            header = pydicom.dcmread(path, force=True, specific_tags=["Rows", "Columns"], stop_before_pixels=True)
            size = int(header.Columns), int(header.Rows)
        else:
            with Image.open(path) as image:
                size = image.size
        if min(size) < 1:
            raise ValueError("no pixels")
    return size


def index_images(folders: Iterable[Path], extensions: Sequence[str] = (".png", ".jpg", ".jpeg")) -> dict[str, Path]:
    """The images directly in some folders, by file name; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(tuple(extensions)):
                    found.setdefault(entry.name, Path(entry.path))
    return found


def view_name(text: str | None) -> str | None:
    """A published view position in the manifest's words: ``PA``, ``AP``, ``LAT``, else as it is in capitals."""
    word = (text or "").strip().upper()
    return _VIEWS.get(" ".join(re.split(r"[\s_-]+", word)), word) or None


def sex_letter(text: str | None) -> str | None:
    """``M``, ``F`` or ``O`` of these letters in any case, else None."""
    word = (text or "").strip().upper()
    return word if word in ("M", "F", "O") else None


def years(text: str | None) -> float | None:
    """Years of DICOM's ``058Y``, ``006M``, ``010W``, ``012D``, or of a bare ``58``.

    None of what is empty or no age, and of 0 and above 120 years, which are placeholders and errors in published sets.
    """
    word = (text or "").strip().upper()
    number, unit = (word, "Y") if word.isdigit() else (word[:-1], word[-1:])
    if not number.isdigit() or unit not in _UNITS:
        return None
    age = round(int(number) * _UNITS[unit], 2)
    return age if 0 < age <= _OLDEST else None
