"""A bundle's model in three lines of Python.

::

    model = cxw_monai.load("chexworld_segmentation")
    masks = model.segment("film.dcm")               # {"lung_left": bool [H, W], ...} on the film's own grid

    encoder = cxw_monai.load("RUN/encoder.pt")
    vector = encoder.embed("film.dcm")              # float32 [D]

    classifier = cxw_monai.load("RUN/model.pt")
    found = classifier.classify("film.dcm")         # {"pneumonia": 0.93, ...}, probabilities

    landmarker = cxw_monai.load("RUN/model.pt")
    points = landmarker.locate("film.dcm")          # {"carina": (x, y, confidence), ...}, px of the film
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import cast

import numpy as np
import torch
from torch import nn
from typing_extensions import Self

from cxw_monai.io import Radiograph
from cxw_monai.networks import (
    RadiographClassifier,
    RadiographEmbedder,
    RadiographLandmarker,
    RadiographSegmenter,
    WholeFilmNetwork,
)
from cxw_monai.quality.review import ImplausibleWarning
from cxw_monai.weights.classifier_settings import ClassifierSettings
from cxw_monai.weights.kinds import LoadedNetwork, load_network
from cxw_monai.weights.landmarker_settings import LandmarkerSettings

from .classify import Probabilitiesd, decisions_of
from .film_model import Film, FilmModel, Hub, read_film
from .locate import Landmark, Pointsd, landmarks_of
from .predictor import Predictor, doubts_of, on_device, review_film

__all__ = ["MODELS", "ClassificationModel", "EmbeddingModel", "FilmModel", "LandmarkModel", "SegmentationModel", "load"]


def _warn(film: Radiograph, doubts: Sequence[str]) -> None:
    """Warn the caller's caller of what speaks against a film."""
    if doubts:
        name = film.meta.get("path", "a film")
        warnings.warn(f"{name}: implausible, look at it: {'; '.join(doubts)}", ImplausibleWarning, stacklevel=3)


class SegmentationModel(FilmModel):
    """A segmenter and what its films need before and after it: the answers of the bundle's own inference.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to logits `[B, S, h, w]`.
        structures: S names.
        image_size, device, weights, predictor: see `FilmModel`.
    """

    KIND, NOUN, BUNDLE = "segmentation", "a segmenter", "chexworld_segmentation"
    HUB = Hub("cxw_monai_segmenter", "image-segmentation", 'masks = model.segment("film.dcm")')

    def __init__(
        self,
        network: RadiographSegmenter,
        image_size: tuple[int, int],
        device: torch.device,
        weights: str | PathLike[str] = "the model",
        amp: str = "auto",
    ) -> None:
        self.network, self.image_size, self.structures = network, image_size, network.structures
        self.device, self.weights = device, weights
        self.predictor = Predictor(network, image_size, device, network.structures, amp=amp, source=weights)

    @classmethod
    def of(cls, loaded: LoadedNetwork, device: str | torch.device, amp: str) -> Self:
        network = on_device(cast(RadiographSegmenter, loaded.network), device)
        return cls(network, loaded.settings.image_size, torch.device(device), loaded.path, amp)

    def answer(self, film: Film) -> np.ndarray:
        return np.stack(list(self.probabilities(film).values()))

    def probabilities(self, film: Film) -> dict[str, np.ndarray]:
        """Each structure's probability, float32 `[H, W]` on the film's own grid; arguments as for `segment`."""
        return dict(zip(self.structures, self.predictor.on_film(read_film(film)), strict=True))

    def segment(
        self,
        film: Film,
        threshold: float = 0.5,
        keep_largest: bool | str | Sequence[str] = "auto",
        on_implausible: str = "flag",
        augmented: bool = False,
    ) -> dict[str, np.ndarray]:
        """Masks of one film.

        Args:
            film: see `Film`.
            threshold: a pixel is inside from this probability on.
            keep_largest: structures of which only the largest connected part is kept; True for all, ``"auto"`` for
                single organs.
            on_implausible: what is done where the film is no upright frontal chest, or the masks can't be its organs
                (`review` says why): `flag` warns (`cxw_monai.quality.ImplausibleWarning`), `skip` raises, `keep`
                doesn't look.
            augmented: test-time augmentation (`cxw_monai.inference.augmented`), in four times the time.

        Returns:
            bool `[H, W]` by structure, on the pixel grid that the file stores.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the file can't be used as a film, or is implausible and to be skipped.
            ValueError: an argument is wrong.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}")
        radiograph = read_film(film)
        predictor = self.predictor.augmented() if augmented else self.predictor
        masks, doubts, _ = predictor.segment(radiograph, threshold, keep_largest, on_implausible)
        _warn(radiograph, doubts)
        return dict(zip(self.structures, masks, strict=True))

    def review(self, film: Film, masks: Mapping[str, np.ndarray]) -> list[str]:
        """What speaks against masks of a film, in words; nothing where they may be right.

        Args:
            film: as for `segment`.
            masks: bool `[H, W]` by structure, as `segment` gives them.
        """
        return review_film(read_film(film), masks)

    def film_model(self) -> WholeFilmNetwork:
        """Preparation, network and what follows as one module."""
        return WholeFilmNetwork(self.network, self.image_size, dense=True).eval()


class EmbeddingModel(FilmModel):
    """An encoder and what its films need before it: the answers of the bundle's own inference.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to `[B, D]`.
        image_size: (h, w) in px that films are stretched to, that of pretraining.
        predictor: takes films through the network, in float32.
        device, weights: see `FilmModel`.
    """

    KIND, NOUN, BUNDLE, STATE_KEY = "encoder", "an encoder", "chexworld_pretraining", ""
    HUB = Hub("cxw_monai_encoder", "image-feature-extraction", 'embedding = model.embed("film.dcm")')

    def __init__(
        self, network: RadiographEmbedder, device: torch.device, weights: str | PathLike[str] = "the model"
    ) -> None:
        self.network, self.device, self.weights = network, device, weights
        rows, columns = network.encoder.grid
        self.image_size = rows * network.encoder.patch_size, columns * network.encoder.patch_size
        self.predictor = Predictor(network, self.image_size, device, source=weights)

    @classmethod
    def of(cls, loaded: LoadedNetwork, device: str | torch.device, amp: str) -> Self:
        return cls(on_device(cast(RadiographEmbedder, loaded.network), device), torch.device(device), loaded.path)

    def answer(self, film: Film) -> np.ndarray:
        return self.embed(film)

    def embed(self, film: Film) -> np.ndarray:
        """Embedding of one film, the mean of its tokens.

        Args:
            film: see `Film`.

        Returns:
            float32 `[D]`.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the file can't be used as a film.
            ValueError: the array is none.
        """
        return self.predictor.embedding(read_film(film).array)

    def film_model(self) -> WholeFilmNetwork:
        """Preparation and network as one module."""
        return WholeFilmNetwork(self.network, self.image_size, dense=False).eval()


class ClassificationModel(FilmModel):
    """A classifier and what its films need before and after it: the answers of the bundle's own inference.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to logits `[B, L]`.
        classes: L names.
        settings: what the file says: how logits become probabilities, and the operating points.
        image_size, device, weights, predictor: see `FilmModel`.
    """

    KIND, NOUN, BUNDLE = "classification", "a classifier", "chexworld_classification"
    HUB = Hub("cxw_monai_classifier", "image-classification", 'probabilities = model.classify("film.dcm")')

    def __init__(
        self,
        network: RadiographClassifier,
        settings: ClassifierSettings,
        device: torch.device,
        weights: str | PathLike[str] = "the model",
        amp: str = "none",
    ) -> None:
        self.network, self.settings, self.classes = network, settings, settings.classes
        self.image_size, self.device, self.weights = settings.image_size, device, weights
        after = Probabilitiesd(settings)
        self.predictor = Predictor(
            network, self.image_size, device, settings.classes, amp=amp, postprocessing=after, source=weights
        )

    @classmethod
    def of(cls, loaded: LoadedNetwork, device: str | torch.device, amp: str) -> Self:
        network = on_device(cast(RadiographClassifier, loaded.network), device)
        return cls(network, cast(ClassifierSettings, loaded.settings), torch.device(device), loaded.path, amp)

    def answer(self, film: Film) -> np.ndarray:
        return self.predictor.probabilities(read_film(film).array)

    def classify(self, film: Film, on_implausible: str = "flag") -> dict[str, float]:
        """Probability of each class of one film.

        Args:
            film: see `Film`.
            on_implausible: what is done where the film is no upright frontal chest: `flag` warns
                (`cxw_monai.quality.ImplausibleWarning`), `skip` raises, `keep` doesn't look. Models of another anatomy
                don't look either.

        Returns:
            By class, in [0, 1]; of classes that exclude each other they sum to 1.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the file can't be used as a film, or is implausible and to be skipped.
            ValueError: an argument is wrong.
        """
        radiograph = read_film(film)
        found, doubts = self.classified(radiograph, on_implausible)
        _warn(radiograph, doubts)
        return found

    def classified(self, film: Radiograph, on_implausible: str) -> tuple[dict[str, float], list[str]]:
        """Probability of each class, and what speaks against the film as an upright frontal chest film."""
        doubts = doubts_of(film, on_implausible, self.settings.anatomy)
        return dict(zip(self.classes, self.predictor.probabilities(film.array).tolist(), strict=True)), doubts

    def decide(self, film: Film, on_implausible: str = "flag") -> dict[str, dict[str, bool]]:
        """By class and name of the operating point, whether the film's probability reaches the point's threshold.

        Empty for a class without operating points. Arguments and errors are those of `classify`.
        """
        return decisions_of(self.classify(film, on_implausible), self.settings.operating_points)

    def film_model(self) -> WholeFilmNetwork:
        """Preparation, network and calibrated probabilities as one module."""
        return WholeFilmNetwork(self.settings.probabilities(self.network), self.image_size, dense=False).eval()


class LandmarkModel(FilmModel):
    """A landmark network and what its films need before and after it: the answers of the bundle's own inference.

    Attributes:
        network: takes `[B, 1, h, w]` in [0, 1] to heat maps `[B, P, h, w]`.
        points: P names.
        settings: what the file says: the names, and how heat maps become points.
        image_size, device, weights, predictor: see `FilmModel`.
    """

    KIND, NOUN, BUNDLE = "landmarks", "a landmark network", "chexworld_landmarks"
    HUB = Hub("cxw_monai_landmarker", "keypoint-detection", 'points = model.locate("film.dcm")')

    def __init__(
        self,
        network: RadiographLandmarker,
        settings: LandmarkerSettings,
        device: torch.device,
        weights: str | PathLike[str] = "the model",
        amp: str = "none",
    ) -> None:
        self.network, self.settings, self.points = network, settings, settings.points
        self.image_size, self.device, self.weights = settings.image_size, device, weights
        after = Pointsd(settings)
        self.predictor = Predictor(
            network, self.image_size, device, settings.points, amp=amp, postprocessing=after, source=weights
        )

    @classmethod
    def of(cls, loaded: LoadedNetwork, device: str | torch.device, amp: str) -> Self:
        network = on_device(cast(RadiographLandmarker, loaded.network), device)
        return cls(network, cast(LandmarkerSettings, loaded.settings), torch.device(device), loaded.path, amp)

    def answer(self, film: Film) -> np.ndarray:
        return self.predictor.probabilities(read_film(film).array)

    def locate(self, film: Film, on_implausible: str = "flag") -> dict[str, Landmark]:
        """Landmarks of one film.

        Args:
            film: see `Film`.
            on_implausible: what is done where the film is no upright frontal chest: `flag` warns
                (`cxw_monai.quality.ImplausibleWarning`), `skip` raises, `keep` doesn't look. Models of another anatomy
                don't look either.

        Returns:
            By name `(x, y, confidence)`: column and row in px of the stored film (the first pixel's centre is 0, 0),
            and in [0, 1] how much of the heat map lies there: a landmark that isn't on the film has little.

        Raises:
            CheckpointError: the network answers with values that are no numbers.
            RadiographError: the file can't be used as a film, or is implausible and to be skipped.
            ValueError: an argument is wrong.
        """
        radiograph = read_film(film)
        doubts = doubts_of(radiograph, on_implausible, self.settings.anatomy)
        found = landmarks_of(radiograph, self.predictor.probabilities(radiograph.array), self.points)
        _warn(radiograph, doubts)
        return found

    def film_model(self) -> WholeFilmNetwork:
        """Preparation, network and the reading of its maps as one module: `[B, 1, H, W]` to `[B, P, 3]`, x and y as
        shares of the film's width and height, and the confidence."""
        read = nn.Sequential(self.network, self.settings.reading())
        return WholeFilmNetwork(read, self.image_size, dense=False).eval()


MODELS: dict[str, type[FilmModel]] = {
    model.KIND: model for model in (SegmentationModel, EmbeddingModel, ClassificationModel, LandmarkModel)
}
"""The class of each kind of weights."""


def load(
    name_or_path: str | PathLike[str],
    device: str | torch.device = "cpu",
    amp: str | None = None,
    weights: str | None = None,
) -> SegmentationModel | EmbeddingModel | ClassificationModel | LandmarkModel:
    """The model of a bundle, ready for films.

    Args:
        name_or_path: a bundle's name (`chexworld_segmentation`), its folder, a zip of `scripts/package_bundle.py`, or
            a file of weights (`model.pt`, `encoder.pt`, `.safetensors`) of a run.
        device: where the network computes.
        amp: precision of a segmenter, classifier or landmark network: `auto` (bfloat16 where the device computes it
            faster, which moves single pixels at edges), `bfloat16`, or `none` (float32). By default that of the
            bundle's inference: `auto` for a segmenter, `none` for the others, since bfloat16 rounds a classifier's
            logits until films share them.
            Encoders compute in float32.
        weights: name of weights of a bundle that has several, such as `shenzhen_tuberculosis`; None for its `model.pt`.

    Returns:
        The model of `MODELS` that the weights are of. Nothing is unpickled, and no config is executed.

    Raises:
        BundleError: there is no such bundle, or its zip is none.
        CheckpointError: the weights are missing, damaged or no such model.
    """
    loaded = load_network(name_or_path, weights)
    model = MODELS[loaded.kind].of(loaded, device, amp or ("auto" if loaded.kind == "segmentation" else "none"))
    return cast("SegmentationModel | EmbeddingModel | ClassificationModel | LandmarkModel", model)
