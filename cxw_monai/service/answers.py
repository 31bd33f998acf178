"""The bundles that answer films: a film in, DICOM SEG and SR in a folder out, by the bundles' own inference."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from cxw_monai.inference.api import ClassificationModel, LandmarkModel, SegmentationModel, load
from cxw_monai.inference.classify import FilmClassifier
from cxw_monai.inference.classify_settings import ClassifySettings
from cxw_monai.inference.film_run import FilmRun
from cxw_monai.inference.locate import FilmLocator
from cxw_monai.inference.locate_settings import LocateSettings
from cxw_monai.inference.reading import ReadFilm, read_whole
from cxw_monai.inference.run import FilmSegmenter
from cxw_monai.inference.settings import SegmentSettings, model_hash
from cxw_monai.io import RadiographError
from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import read_rows
from cxw_monai.io.results.dicom_seg import checked_seg_type
from cxw_monai.quality.review import NO_CHEST, film_doubts

__all__ = ["ANSWER", "Answer", "Answerer", "Refused"]

ANSWER = "answer.json"
"""File in a film's folder that says that its results are whole."""


class Answer(NamedTuple):
    """What a film's results are.

    Attributes:
        reasons: what speaks against them, and why one of them isn't there.
        results: their files, relative to the film's folder.
    """

    reasons: tuple[str, ...]
    results: tuple[str, ...]


class Refused(Exception):
    """The film is no frontal chest film, as far as the quality model sees.

    Attributes:
        reasons: in words.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


class _Bundle(ABC):
    """A loaded model of the service."""

    TABLE: str
    """File whose row says what became of a film."""

    def __init__(self, name: str, weights: str | PathLike[str]) -> None:
        self.name, self.digest = name, model_hash(weights)

    @abstractmethod
    def run(self, path: str, folder: Path) -> FilmRun:
        """A run of one film."""

    def answer(self, path: str, film: ReadFilm, doubts: list[str], folder: Path) -> Answer:
        """Write one film's results below a folder of this bundle's own; `doubts` are those about the film."""
        run, own = self.run(path, folder / self.name), folder / self.name
        self.write(run, film, doubts)
        with (own / self.TABLE).open(newline="", encoding="utf-8") as stream:
            (row,) = read_rows(stream)
        notes = (row["implausible"], row["sr_note"], row.get("seg_note", ""))
        files = sorted(path.relative_to(folder).as_posix() for path in own.rglob("*.dcm"))
        return Answer(tuple(filter(None, notes)), tuple(files))

    def write(self, run: FilmRun, film: ReadFilm, doubts: list[str]) -> None:
        """Write the results."""
        run.write(run.results(), *film)


class _Segmenter(_Bundle):
    TABLE = "measurements.csv"

    def __init__(self, name: str, model: SegmentationModel, seg_type: str) -> None:
        super().__init__(name, model.weights)
        self.model, self.seg_type = model, seg_type

    def run(self, path: str, folder: Path) -> FilmRun:
        predictor = self.model.predictor
        return FilmSegmenter(
            [path],
            path,
            folder,
            network=self.model.network,
            structures=self.model.structures,
            preprocessing=predictor.preprocessing,
            inferer=predictor.inferer,
            postprocessing=predictor.postprocessing,
            device=self.model.device,
            settings=SegmentSettings(formats=("seg", "sr", "csv"), seg_type=self.seg_type),
            model=self.digest,
        )


class _Reporter(_Bundle):
    """A classifier or a landmark model, whose answer is a report."""

    def __init__(self, name: str, model: ClassificationModel | LandmarkModel) -> None:
        super().__init__(name, model.weights)
        self.model = model
        settings: Mapping[str, Any] = {"formats": ["sr"], "device": model.device}
        self.kind: Callable[..., FilmRun]
        self.settings: ClassifySettings | LocateSettings
        if isinstance(model, LandmarkModel):
            self.TABLE, self.kind, self.settings = "landmarks.csv", FilmLocator, LocateSettings(**settings)
        else:
            self.TABLE, self.kind, self.settings = "classification.csv", FilmClassifier, ClassifySettings(**settings)

    def run(self, path: str, folder: Path) -> FilmRun:
        predictor = self.model.predictor
        return self.kind(
            [path],
            path,
            folder,
            network=self.model.network,
            model=self.model.settings,
            preprocessing=predictor.preprocessing,
            inferer=predictor.inferer,
            postprocessing=predictor.postprocessing,
            settings=self.settings,
            model_hash=self.digest,
        )

    def write(self, run: FilmRun, film: ReadFilm, doubts: list[str]) -> None:
        run.write(run.results(), *film, doubts)


class Answerer:
    """The bundles of a service.

    Args:
        models: what `cxw_monai.load` takes, each a segmenter, a classifier or a landmark model; ``NAME:WEIGHTS`` for
            weights of a bundle that has several.
        device: where they compute.
        seg_type: how a DICOM SEG stores masks.

    Raises:
        ValueError: another kind of model, or none, or another type of SEG.
        BundleError, CheckpointError: a model can't be loaded.
    """

    def __init__(self, models: Sequence[str], device: str = "cpu", seg_type: str = "auto") -> None:
        if not models:
            raise ValueError("give at least one --model")
        checked_seg_type(seg_type)
        self.bundles: list[_Bundle] = []
        for number, given in enumerate(models, start=1):
            path, colon, weights = given.rpartition(":")
            model = load(path, device, weights=weights) if colon else load(given, device)
            if isinstance(model, SegmentationModel):
                self.bundles.append(_Segmenter(f"{number}_segmentation", model, seg_type))
            elif isinstance(model, (ClassificationModel, LandmarkModel)):
                kind = "landmarks" if isinstance(model, LandmarkModel) else "classification"
                self.bundles.append(_Reporter(f"{number}_{kind}", model))
            else:
                raise ValueError(f"{given}: embeddings have no DICOM result; give a segmenter, classifier or landmarks")

    def answer(self, film: Path, folder: Path) -> Answer:
        """Write a film's results, or find those that are there.

        Args:
            film: its file.
            folder: of its results; a whole answer in it is taken as it is.

        Raises:
            RadiographError: the film can't be read.
            Refused: it is no frontal chest film. One that is turned, mirrored or inverted has results, whose
                descriptions say so.
        """
        about = folder / ANSWER
        if about.is_file():
            known = json.loads(about.read_text(encoding="utf-8"))
            return Answer(tuple(known["reasons"]), tuple(known["results"]))
        found = read_whole(str(film), {})
        if found is None or isinstance(found, RadiographError):
            raise found or RadiographError(film, "it was not read", "send it again")
        doubts = film_doubts(found[0].array)
        if NO_CHEST.intersection(doubts):
            raise Refused(doubts)
        answers = [bundle.answer(str(film), found, doubts, folder) for bundle in self.bundles]
        reasons, results = ([one for answer in answers for one in answer[part]] for part in (0, 1))
        answer = Answer(tuple(dict.fromkeys(reasons)), tuple(results))
        with atomic_file(about, "w", encoding="utf-8") as stream:
            json.dump(answer._asdict(), stream)
        return answer
