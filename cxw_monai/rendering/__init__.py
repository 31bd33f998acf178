"""Digitally reconstructed radiographs (DRRs) of virtual patients, made from any labelled CT.

The chain: :mod:`source` reads a CT with labels; :mod:`anatomy` resamples and cleans it once; :mod:`patient` draws size,
shape, densities and :mod:`findings`; :mod:`projector` integrates along the rays of a cone beam (:mod:`geometry`);
:mod:`detector` adds noise, display and collimation; :mod:`dataset` writes pictures, masks and one manifest.

    from cxw_monai.rendering import make_dataset
    manifest = make_dataset("drr", patients=8, size=256, views=("PA", "LAT"), seed=0)
"""

from .dataset import make_dataset
from .source import CTSource

__all__ = ["CTSource", "make_dataset"]
