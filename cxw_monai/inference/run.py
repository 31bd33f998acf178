"""Segments films: files in, masks on the films' own pixel grids out.

A film goes through the network by itself (`Predictor`), whole as in training or window by window, and its probabilities
come back to the stored grid through its pixel map, where the threshold makes masks of them. Films are read ahead in
threads.

::

    DIR/...             what :class:`~cxw_monai.inference.outputs.SegmentationWriter` writes
    DIR/failures.csv    films that could not be segmented: name, reason, remedy
    DIR/settings.json   the model's hash, what the masks were made with, and what the structures' names mean
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cxw_monai import __version__
from cxw_monai.io import Radiograph, RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import CsvWriter
from cxw_monai.io.files.identity import FileIdentity
from cxw_monai.io.results.dicom_seg import SegAlgorithm
from cxw_monai.io.results.film_names import film_name
from cxw_monai.io.results.folders import output_lock
from cxw_monai.io.structures import definitions
from cxw_monai.training.errors import install_error_hook, runs_bundle_command
from cxw_monai.training.precision import supported_amp

from .outputs import SegmentationWriter
from .predictor import Predictor, Transform, kept_to_largest
from .reading import read_ahead, read_whole
from .settings import SegmentSettings

__all__ = ["FilmSegmenter", "end_with_status", "install_exit_hook"]

_FAILURES, _SETTINGS = "failures.csv", "settings.json"
_PLACE = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""Errors of one film's place in the output, which the other films don't have."""
_logger = logging.getLogger(__name__)


class FilmSegmenter:
    """Segments one film after the other and writes its results.

    A film that can't be read is logged in one line and listed in ``failures.csv``; the others are segmented.

    Args:
        films: absolute paths.
        source: what the user gave as input; films are named by their path below it (below its folder, for a file).
        output_dir: is made.
        network: takes ``[B, 1, H, W]`` in [0, 1] to ``[B, S, H, W]``.
        structures: S names of the network's channels.
        preprocessing, inferer, postprocessing, device: see `Predictor`.
        settings: the rest.
        model: hash of the weights, for the record.

    Raises:
        ValueError: ``keep_largest`` names a structure that the model hasn't.
    """

    def __init__(
        self,
        films: Sequence[str],
        source: str | PathLike[str],
        output_dir: str | PathLike[str],
        *,
        network: nn.Module,
        structures: Sequence[str],
        preprocessing: Transform,
        inferer: Inferer,
        postprocessing: Transform,
        device: str | torch.device = "cpu",
        settings: SegmentSettings | None = None,
        model: str = "",
    ) -> None:
        self.films, self.output_dir = list(films), Path(output_dir)
        self.root = os.path.abspath(source) if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
        self.settings, self.model = settings or SegmentSettings(), model
        self.structures = tuple(structures)
        self.predictor = Predictor(
            network,
            preprocessing,
            device,
            structures,
            amp=self.settings.amp,
            inferer=inferer,
            postprocessing=postprocessing,
        )
        self.keep_largest = kept_to_largest(self.settings.keep_largest, self.structures)

    def run(self) -> dict[str, Any]:
        """Segment all films.

        Returns:
            The writer's summary of this run, with the number ``failed`` of films that couldn't be read and ``total``.

        Raises:
            ValueError: the folder can't be written, holds a run to resume that was made in another way, or another
                run is writing there (OutputBusyError).
        """
        try:
            with output_lock(self.output_dir):
                return self._run()
        except OSError as error:
            where = error.filename or self.output_dir
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"{where}: {reason}; correct that or give another --output, and continue with --resume true"
            ) from None

    def _run(self) -> dict[str, Any]:
        self._record()
        settings = self.settings
        algorithm = SegAlgorithm(version=f"{__version__} {self.model[:16]}".strip(), description=self._described())
        writer = SegmentationWriter(
            self.output_dir,
            self.structures,
            self.films,
            settings.formats,
            root=self.root,
            algorithm=algorithm,
            resume=settings.resume,
            seg_type=settings.seg_type,
        )
        failed = self._segment(writer)
        return {**writer.finish(), "failed": failed, "total": len(self.films)}

    def _segment(self, writer: SegmentationWriter) -> int:
        """Write the films that can be read and aren't done; how many can't."""
        failed, table = 0, self.output_dir / _FAILURES
        with (
            table.open("w", newline="", encoding="utf-8", buffering=1) as lines,
            logging_redirect_tqdm(),
            tqdm(total=len(self.films), desc="segmenting", unit="film") as bar,
            warnings.catch_warnings(),
        ):
            failures = CsvWriter(lines)
            failures.writerow(("path", "reason", "remedy"))
            warnings.simplefilter("ignore")  # readers silence theirs, which may quote headers, but threads can cross
            read = partial(read_whole, options=self.settings.reader_options(), is_done=writer.is_written)
            for film in read_ahead(self.films, read, self.settings.num_workers, self.settings.batch_size):
                try:
                    if isinstance(film, RadiographError):
                        raise film
                    if film is not None:
                        self._write(*film, writer)
                except RadiographError as error:
                    failed += 1
                    failures.writerow((film_name(error.path, self.root), error.reason, error.remedy))
                    _logger.warning("not segmented: %s", error)
                    writer.leave_out(error.path)
                del film  # before the next one is waited for
                bar.update()
        return failed

    def _write(self, radiograph: Radiograph, identity: FileIdentity, writer: SegmentationWriter) -> None:
        settings = self.settings
        masks, doubts = self.predictor.segment(
            radiograph, settings.threshold, settings.keep_largest, settings.on_implausible
        )
        if doubts:
            _logger.warning("implausible, look at it: %s: %s", radiograph.meta["path"], "; ".join(doubts))
        try:
            writer.write(radiograph, masks, identity, doubts=doubts)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno not in _PLACE:
                raise
            reason = f"its results can't have its name ({getattr(error, 'strerror', None) or type(error).__name__})"
            raise RadiographError(radiograph.meta["path"], reason, "rename it, or give a shorter --output") from error

    def _described(self) -> str:
        """For the SEG's series description, of at most 64 characters."""
        largest = ", largest parts only" if any(self.keep_largest) else ""
        return f"Segmentation, threshold {self.settings.threshold:g}{largest}"[:64]

    def _record(self) -> None:
        """Write what the masks are made with, or check that a run to resume was made the same way.

        Raises:
            ValueError: it was made in another way.
        """
        made = asdict(self.settings)
        for name in ("batch_size", "num_workers", "resume"):  # no mask depends on them
            del made[name]
        made["amp"] = supported_amp(self.predictor.device, made["amp"])
        made["keep_largest"] = [name for name, kept in zip(self.structures, self.keep_largest, strict=True) if kept]
        made |= {"structures": self.structures, "model_sha256": self.model, "package_version": __version__}
        made = json.loads(json.dumps(made))
        path = self.output_dir / _SETTINGS
        if self.settings.resume and path.is_file():
            before = _settings_of(path)
            for name in made:
                if before.get(name) != made[name]:
                    difference = f"{name} was {before.get(name)!r} and is now {made[name]!r}"
                    remedy = "give the same again, or another --output"
                    if name == "amp" and made[name] == "none" and self.settings.amp != "none":
                        difference = "the masks there were computed in bfloat16, which the device here does not compute"
                        remedy = "resume on a machine like the first one, or give another --output"
                    raise ValueError(f"{path}: {difference}; {remedy}")
            for part in self.output_dir.rglob(".*.part"):  # of the files that a killed run was writing
                part.unlink()
            return
        with atomic_file(path, "w", encoding="utf-8") as stream:
            json.dump(made | {"definitions": definitions(self.structures)}, stream, indent=2)


def _settings_of(path: Path) -> dict[str, Any]:
    """What an earlier run recorded."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise ValueError(f"{path}: not what a run wrote there; give another --output, or --resume false")  # noqa: TRY004
    return before


def end_with_status(summary: Mapping[str, Any], output_dir: str | PathLike[str], done: str = "segmented") -> None:
    """End the program with status 1 and a line about it where films failed.

    Args:
        summary: of the run, with `failed` and `total`.
        output_dir: where `failures.csv` is.
        done: what the films were not.

    Raises:
        SystemExit: films failed.
    """
    if summary["failed"]:
        table = Path(output_dir) / _FAILURES
        raise SystemExit(f"error: {summary['failed']} of {summary['total']} films were not {done}; see {table}")


def install_exit_hook() -> None:
    """Let an error end the program with its one line (`install_error_hook`) and status 2."""
    install_error_hook()
    if not runs_bundle_command():
        return
    show = sys.excepthook

    def show_and_exit(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted; what is written is whole: resume with --resume true", file=sys.stderr)
            raise SystemExit(130)
        show(kind, error, trace)
        raise SystemExit(2)  # Python ends with it

    sys.excepthook = show_and_exit
