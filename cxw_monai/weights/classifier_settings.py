"""What defines a classification network, in plain values that a file of a stranger may hold, checked before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from cxw_monai.networks import VIT_SIZES, ClassProbabilities, RadiographClassifier, radiograph_classifier
from cxw_monai.networks.heads import HEADS

from .task_settings import CHEST, EncoderUse, check_choice, check_names, check_range, shown

__all__ = ["TARGETS", "ClassifierSettings"]

TARGETS = ("multi_label", "multi_class")

_TEMPERATURES = 1e-4, 1e4
_MOST_THRESHOLD = 2  # above 1 for never


def _is_number(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(EncoderUse):
    """What defines a `RadiographClassifier` and how its logits are read, in plain values.

    Attributes:
        classes: names in the order of the logits.
        target: `multi_label` (each class has its own sigmoid) or `multi_class` (one softmax).
        head: one of `cxw_monai.networks.heads.HEADS`.
        head_layers: how many of the encoder's last blocks the head reads.
        head_norm: layer normalisation before the head's own weights.
        temperatures: what logits are divided by before the sigmoid (one a class) or the softmax (one), fitted on
            validation films; none where they were not fitted.
        operating_points: by class, thresholds of the calibrated probability by the name of the point, chosen on
            validation films; a class without one has none.
        anatomy: what its films show: `chest` for frontal chests, whose films are checked for being such; any other
            word is a label.

    Raises:
        ValueError: one of them is of another type or out of its range.
    """

    classes: tuple[str, ...]
    target: str
    head: str
    head_layers: int
    head_norm: bool
    temperatures: tuple[float, ...] = ()
    operating_points: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    anatomy: str = CHEST

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.classes, "classes")
        check_names([self.anatomy], "anatomy")
        check_choice("target", self.target, TARGETS)
        check_choice("head", self.head, HEADS)
        check_range("head_layers", self.head_layers, VIT_SIZES[self.size]["depth"])
        if type(self.head_norm) is not bool:
            raise ValueError(f"head_norm must be true or false, got {shown(self.head_norm)}.")
        if self.target == "multi_class" and len(self.classes) < 2:
            raise ValueError(f"classes of a multi_class target must be two or more, got {shown(self.classes)}.")
        self._check_temperatures()
        self._check_points()

    def _check_temperatures(self) -> None:
        found = self.temperatures
        count = 1 if self.target == "multi_class" else len(self.classes)
        if not isinstance(found, tuple) or len(found) not in (0, count):
            raise ValueError(f"temperatures must be {count} or none, got {shown(found)}.")
        if not all(_is_number(one, *_TEMPERATURES) for one in found):
            raise ValueError(f"temperatures must be numbers above 0, got {shown(found)}.")

    def _check_points(self) -> None:
        points = self.operating_points
        if not isinstance(points, Mapping) or not set(points) <= set(self.classes):
            raise ValueError(f"operating_points must be thresholds by class and name, got {shown(points)}.")
        for name, thresholds in points.items():
            if not isinstance(thresholds, Mapping) or not all(
                _is_number(one, 0, _MOST_THRESHOLD) for one in thresholds.values()
            ):
                raise ValueError(
                    f"operating_points of {name} must be numbers from 0 to {_MOST_THRESHOLD}, got {shown(thresholds)}."
                )
            if thresholds:
                check_names(list(thresholds), f"operating_points of {name}")

    def network(self, drop_path: float = 0.0, frozen_blocks: int = 0) -> RadiographClassifier:
        """The network with fresh weights."""
        return radiograph_classifier(
            self.classes,
            head=self.head,
            head_layers=self.head_layers,
            head_norm=self.head_norm,
            drop_path=drop_path,
            frozen_blocks=frozen_blocks,
            **self.sizes(),
        )

    def probabilities(self, network: nn.Module) -> ClassProbabilities:
        """A classifier of these settings with its calibrated probabilities."""
        return ClassProbabilities(network, self.target == "multi_class", self.temperatures or (1.0,)).eval()
