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

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from cxw_monai import __version__
from cxw_monai.io import Radiograph
from cxw_monai.io.files.identity import FileIdentity
from cxw_monai.io.results.dicom_seg import SegAlgorithm
from cxw_monai.io.structures import definitions
from cxw_monai.training.errors import install_error_hook, runs_bundle_command

from .film_run import FAILURES, FilmRun, warn_of_doubts
from .outputs import SegmentationWriter
from .predictor import Predictor, Transform, kept_to_largest
from .settings import SegmentSettings

__all__ = ["FilmSegmenter", "end_with_status", "install_exit_hook"]


class FilmSegmenter(FilmRun):
    """Segments one film after the other and writes its results; see `FilmRun`.

    Args:
        films, source, output_dir: see `FilmRun`.
        network: takes ``[B, 1, H, W]`` in [0, 1] to ``[B, S, H, W]``.
        structures: S names of the network's channels.
        preprocessing, inferer, postprocessing, device: see `Predictor`.
        settings: the rest.
        model: hash of the weights, for the record.

    Raises:
        ValueError: ``keep_largest`` names a structure that the model hasn't.
    """

    DOING, DONE = "segmenting", "segmented"

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
        self.settings, self.model = settings or SegmentSettings(), model
        self.structures = tuple(structures)
        chosen = self.settings
        given: dict[str, Any] = {"amp": chosen.amp, "inferer": inferer, "postprocessing": postprocessing}
        predictor = Predictor(network, preprocessing, device, structures, **given)
        ahead = chosen.num_workers, chosen.batch_size
        super().__init__(films, source, output_dir, predictor, chosen.reader_options(), *ahead, chosen.resume)
        self.keep_largest = kept_to_largest(self.settings.keep_largest, self.structures)

    def results(self) -> SegmentationWriter:
        settings = self.settings
        return SegmentationWriter(
            self.output_dir,
            self.structures,
            self.films,
            settings.formats,
            root=self.root,
            algorithm=SegAlgorithm(version=f"{__version__} {self.model[:16]}".strip(), description=self._described()),
            resume=settings.resume,
            seg_type=settings.seg_type,
        )

    def summary(self, results: SegmentationWriter, failed: int) -> dict[str, Any]:
        return results.finish()

    def write(self, results: SegmentationWriter, film: Radiograph, identity: FileIdentity, *more: Any) -> None:
        chosen = self.settings.threshold, self.settings.keep_largest, self.settings.on_implausible
        masks, doubts, expected = self.predictor.segment(film, *chosen)
        warn_of_doubts(film, doubts)
        results.write(film, masks, identity, doubts=doubts, expected_dice=expected)

    def _described(self) -> str:
        """For the SEG's series description, of at most 64 characters."""
        largest = ", largest parts only" if any(self.keep_largest) else ""
        return f"Segmentation, threshold {self.settings.threshold:g}{largest}"[:64]

    def made_with(self) -> dict[str, Any]:
        made = asdict(self.settings)
        for name in ("batch_size", "num_workers", "resume"):  # no mask depends on them
            del made[name]
        made["keep_largest"] = [name for name, kept in zip(self.structures, self.keep_largest, strict=True) if kept]
        return made | {"structures": self.structures, "model_sha256": self.model, "package_version": __version__}

    def about(self) -> dict[str, Any]:
        return {"definitions": definitions(self.structures)}


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
        table = Path(output_dir) / FAILURES
        raise SystemExit(f"error: {summary['failed']} of {summary['total']} films were not {done}; see {table}")


def install_exit_hook() -> None:
    """Let an error end the program with its one line (`install_error_hook`) and status 2."""
    install_error_hook()
    if not runs_bundle_command():
        return
    show = sys.excepthook

    def show_and_exit(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(
                "interrupted; what is written is whole: continue with resume=true (cxw-monai: --set resume=true)",
                file=sys.stderr,
            )
            raise SystemExit(130)
        show(kind, error, trace)
        raise SystemExit(2)  # Python ends with it

    sys.excepthook = show_and_exit
