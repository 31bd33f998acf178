"""A segmenter of films as the segmentation bundle builds it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from monai.transforms import Activationsd, Compose
from torch import nn

from cxw_monai.inference.predictor import film_inferer
from cxw_monai.inference.run import FilmSegmenter
from cxw_monai.inference.settings import SegmentSettings
from cxw_monai.transforms.whole_film import WholeFilmd

__all__ = ["film_segmenter"]


def film_segmenter(
    films: Sequence[str | PathLike[str]],
    source: str | PathLike[str],
    output: str | PathLike[str],
    network: nn.Module,
    structures: Sequence[str],
    size: int | Sequence[int] = 96,
    window: int | None = None,
    **settings: object,
) -> FilmSegmenter:
    """Films are shown at `size` px, or in windows of their own size; `png` and `csv` are written by default."""
    return FilmSegmenter(
        [str(film) for film in films],
        source,
        output,
        network=network.eval(),
        structures=structures,
        preprocessing=Compose([] if window else [WholeFilmd(size)]),
        inferer=film_inferer(window),
        postprocessing=Compose([Activationsd("pred", sigmoid=True)]),
        settings=SegmentSettings(**{"formats": ("png", "csv"), **settings}),
    )
