"""A run over films: they are read ahead in threads, one after the other is answered, and a killed run can be resumed.

::

    DIR/failures.csv    films that failed: name, reason, remedy
    DIR/settings.json   what the results were made with
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.files.identity import FileIdentity
from cxw_monai.io.results.film_names import film_name
from cxw_monai.io.results.folders import output_lock
from cxw_monai.training.precision import supported_amp

from .film_results import FilmResults
from .predictor import Predictor
from .reading import read_ahead, read_whole
from .settings import film_spacings

__all__ = ["FAILURES", "SETTINGS", "FilmRun", "warn_of_doubts"]

FAILURES, SETTINGS = "failures.csv", "settings.json"
_PLACE = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""Errors of one film's place in the output, which the other films don't have."""

_logger = logging.getLogger(__name__)


class FilmRun(ABC):
    """Answers one film after the other and writes its results.

    A film that can't be read is logged in one line and listed in ``failures.csv``; the others are done.

    Args:
        films: absolute paths.
        source: what the user gave as input; films are named by their path below it (below its folder, for a file). A
            manifest's `pixel_spacing_mm` is the spacing of films whose file declares none.
        output_dir: is made.
        predictor: takes films through the network.
        reader: keyword arguments of :func:`~cxw_monai.io.read_radiograph`.
        num_workers: reading threads.
        batch_size: films in memory beside the one that is worked on.
        resume: leave out films of which the output folder has results, made from the same content.
    """

    DOING: ClassVar[str]
    DONE: ClassVar[str]
    """Words for what is done with films."""

    def __init__(
        self,
        films: Sequence[str],
        source: str | PathLike[str],
        output_dir: str | PathLike[str],
        predictor: Predictor,
        reader: Mapping[str, Any],
        num_workers: int,
        batch_size: int,
        resume: bool,
    ) -> None:
        self.films, self.output_dir, self.predictor = list(films), Path(output_dir), predictor
        self.root = os.path.abspath(source) if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
        self.reader, self.num_workers, self.batch_size, self.resume = reader, num_workers, batch_size, resume
        self.spacings = film_spacings(source)

    @abstractmethod
    def made_with(self) -> dict[str, Any]:
        """All that the results depend on, in plain values: what a resumed run must have alike."""

    def about(self) -> dict[str, Any]:
        """What else `settings.json` says."""
        return {}

    @abstractmethod
    def results(self) -> FilmResults:
        """Where the results go."""

    @abstractmethod
    def write(self, results: Any, film: Radiograph, identity: FileIdentity, *more: Any) -> None:
        """Answer a film and write its results.

        Args:
            results: where they go.
            film, identity, more: what `read` gave.

        Raises:
            RadiographError: this film can't be done.
        """

    @abstractmethod
    def summary(self, results: Any, failed: int) -> dict[str, Any]:
        """Numbers of the run."""

    def run(self) -> dict[str, Any]:
        """Do all films.

        Returns:
            The numbers of this run, with those ``failed`` that couldn't be done, and ``total``.

        Raises:
            ValueError: the folder can't be written, holds a run to resume that was made in another way, or another
                run is writing there (OutputBusyError).
        """
        try:
            with output_lock(self.output_dir):
                self._record()
                results = self.results()
                failed = self._work(results)
                return {**self.summary(results, failed), "failed": failed, "total": len(self.films)}
        except OSError as error:
            where = error.filename or self.output_dir
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"{where}: {reason}; correct that or give another --output, and "
                "continue with resume=true (cxw-monai: --set resume=true)"
            ) from None

    def read(self, path: str, results: FilmResults) -> Any:
        """In a thread: a film and its file's identity, or why it can't be used, or None where it is done."""
        found = read_whole(path, self.reader, results.is_written)
        if isinstance(found, tuple) and found[0].meta["spacing_mm"] is None and (spacing := self.spacings.get(path)):
            meta = found[0].meta
            steps = [step for step in meta["steps"] if not step.startswith("spacing: ")]
            meta |= {"spacing_mm": spacing, "steps": [*steps, "spacing: pixel_spacing_mm of the manifest"]}
        return found

    def _work(self, results: FilmResults) -> int:
        """Do the films that can be read and aren't done; how many can't."""
        failed = 0
        with (
            (self.output_dir / FAILURES).open("w", newline="", encoding="utf-8", buffering=1) as lines,
            logging_redirect_tqdm(),
            tqdm(total=len(self.films), desc=self.DOING, unit="film") as bar,
            warnings.catch_warnings(),
        ):
            failures = CsvWriter(lines)
            failures.writerow(("path", "reason", "remedy"))
            warnings.simplefilter("ignore")  # readers silence theirs, which may quote headers, but threads can cross
            for film in read_ahead(
                self.films, lambda path: self.read(path, results), self.num_workers, self.batch_size
            ):
                try:
                    if isinstance(film, RadiographError):
                        raise film
                    if film is not None:
                        self._write(results, *film)
                except RadiographError as error:
                    failed += 1
                    failures.writerow((film_name(error.path, self.root), error.reason, error.remedy))
                    _logger.warning("not %s: %s", self.DONE, error)
                    results.leave_out(error.path)
                del film  # before the next one is waited for
                bar.update()
        return failed

    def _write(self, results: FilmResults, film: Radiograph, *more: Any) -> None:
        try:
            self.write(results, film, *more)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno not in _PLACE:
                raise
            reason = f"its results can't have its name ({getattr(error, 'strerror', None) or type(error).__name__})"
            raise RadiographError(film.meta["path"], reason, "rename it, or give a shorter --output") from error

    def _record(self) -> None:
        """Write what the results are made with, or check that a run to resume was made the same way.

        Raises:
            ValueError: it was made in another way.
        """
        asked = self.predictor.amp
        amp = supported_amp(self.predictor.device, asked)
        spacings = hashlib.sha256(json.dumps(sorted(self.spacings.items())).encode()).hexdigest()
        made: dict[str, Any] = json.loads(
            json.dumps({**self.made_with(), "amp": amp, "manifest_spacings": spacings if self.spacings else None})
        )
        path = self.output_dir / SETTINGS
        if self.resume and path.is_file():
            before = _settings_of(path)
            for name in made:
                if before.get(name) != made[name]:
                    difference = f"{name} was {before.get(name)!r} and is now {made[name]!r}"
                    remedy = "give the same again, or another --output"
                    if name == "amp" and amp == "none" and asked != "none":
                        difference = (
                            "the results there were computed in bfloat16, which the device here does not compute"
                        )
                        remedy = "resume on a machine like the first one, or give another --output"
                    raise ValueError(f"{path}: {difference}; {remedy}")
            for part in self.output_dir.rglob(".*.part"):  # of the files that a killed run was writing
                part.unlink()
            return
        with atomic_file(path, "w", encoding="utf-8") as stream:
            json.dump(made | self.about(), stream, indent=2)


def warn_of_doubts(film: Radiograph, doubts: Sequence[str]) -> None:
    """Log what speaks against a film or its results, where something does."""
    if doubts:
        _logger.warning("implausible, look at it: %s: %s", film.meta["path"], "; ".join(doubts))


def _settings_of(path: Path) -> dict[str, Any]:
    """What an earlier run recorded."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise ValueError(f"{path}: not what a run wrote there; give another --output, or resume=false")  # noqa: TRY004
    return before
