"""What defines a landmark network, in plain values that a file of a stranger may hold, checked before use."""

from __future__ import annotations

from dataclasses import dataclass

from cxw_monai.networks import HeatMapPoints, RadiographLandmarker, radiograph_landmarker
from cxw_monai.networks.decoders import DECODERS

from .task_settings import CHEST, EncoderUse, check_choice, check_names, check_range, shown

__all__ = ["LandmarkerSettings"]

_MOST_CHANNELS, _MOST_HEAT_PX = 1024, 256


@dataclass(frozen=True, kw_only=True)
class LandmarkerSettings(EncoderUse):
    """What defines a `RadiographLandmarker` and how its maps are read, in plain values.

    Attributes:
        points: names in the order of the maps.
        decoder: one of `cxw_monai.networks.decoders.DECODERS`.
        base_channels: width of the decoder.
        heat_px: deviation of the heat maps in px of the network's image.
        anatomy: what its films show: `chest` for frontal chests, whose films are checked for being such; any other
            word is a label.

    Raises:
        ValueError: one of them is of another type or out of its range.
    """

    points: tuple[str, ...]
    decoder: str
    base_channels: int
    heat_px: float
    anatomy: str = CHEST

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("base_channels", self.base_channels, _MOST_CHANNELS)
        check_choice("decoder", self.decoder, DECODERS)
        check_names(self.points, "points")
        check_names([self.anatomy], "anatomy")
        if type(self.heat_px) not in (int, float) or not 0 < self.heat_px <= _MOST_HEAT_PX:
            raise ValueError(f"heat_px must be a number above 0, up to {_MOST_HEAT_PX}, got {shown(self.heat_px)}.")

    def network(self, drop_path: float = 0.0, frozen_blocks: int = 0) -> RadiographLandmarker:
        """The network with fresh weights."""
        return radiograph_landmarker(
            points=self.points,
            decoder=self.decoder,
            base_channels=self.base_channels,
            heat_px=self.heat_px,
            drop_path=drop_path,
            frozen_blocks=frozen_blocks,
            **self.sizes(),
        )

    def reading(self) -> HeatMapPoints:
        """What takes the network's maps to points."""
        return HeatMapPoints(self.heat_px)
