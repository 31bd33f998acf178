"""What defines a segmentation network, in plain values that a file of a stranger may hold, checked before use."""

from __future__ import annotations

from dataclasses import dataclass

from cxw_monai.networks import RadiographSegmenter, radiograph_segmenter
from cxw_monai.networks.decoders import DECODERS

from .task_settings import MOST_PATCHES, EncoderUse, check_choice, check_names, check_range, checked_image_size

__all__ = ["MOST_PATCHES", "SegmenterSettings", "checked_image_size"]

_MOST_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class SegmenterSettings(EncoderUse):
    """What defines a `RadiographSegmenter`, in plain values.

    Attributes:
        structures: names in the order of the output's channels.
        decoder: one of `cxw_monai.networks.decoders.DECODERS`.
        base_channels: width of the decoder.

    Raises:
        ValueError: one of them is of another type or out of its range.
    """

    structures: tuple[str, ...]
    decoder: str
    base_channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("base_channels", self.base_channels, _MOST_CHANNELS)
        check_choice("decoder", self.decoder, DECODERS)
        check_names(self.structures, "structures")

    def network(self, drop_path: float = 0.0, frozen_blocks: int = 0) -> RadiographSegmenter:
        """The network with fresh weights."""
        return radiograph_segmenter(
            structures=self.structures,
            decoder=self.decoder,
            base_channels=self.base_channels,
            drop_path=drop_path,
            frozen_blocks=frozen_blocks,
            **self.sizes(),
        )
