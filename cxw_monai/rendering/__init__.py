"""Digitally reconstructed radiographs (DRRs) of virtual patients, made from any labelled CT.

The chain: :mod:`source` reads a CT with labels; :mod:`anatomy` resamples and cleans it once; :mod:`patient` draws size,
shape, densities and :mod:`findings`; :mod:`projector` integrates along the rays of a cone beam (:mod:`geometry`);
:mod:`detector` adds noise, display and collimation; :mod:`dataset` writes pictures, masks and one manifest.

    from cxw_monai.rendering import make_dataset
    manifest = make_dataset("drr", patients=8, size=256, views=("PA", "LAT"), seed=0)
"""

from cxw_monai._moved import old_names

from .anatomy import MU_WATER_PER_MM, Anatomy, build_anatomy
from .dataset import MANIFEST_COLUMNS, make_dataset
from .detector import Collimation, Detector
from .findings import FINDINGS, Finding
from .geometry import VIEWS, ConeBeam, default_beam
from .landmarks import LANDMARKS
from .patient import Pose, VirtualPatient, draw_patient, draw_pose, random_stream
from .projector import project_volumes
from .render import PatientVolume, RenderedFilm, build_patient, render
from .settings import DRRSettings
from .source import CTSource, LabelledCT, read_labelled_ct, wheel_source
from .structures import STRUCTURES

__all__ = [
    "FINDINGS",
    "LANDMARKS",
    "MANIFEST_COLUMNS",
    "MU_WATER_PER_MM",
    "STRUCTURES",
    "VIEWS",
    "Anatomy",
    "CTSource",
    "Collimation",
    "ConeBeam",
    "DRRSettings",
    "Detector",
    "Finding",
    "LabelledCT",
    "PatientVolume",
    "Pose",
    "RenderedFilm",
    "VirtualPatient",
    "build_anatomy",
    "build_patient",
    "default_beam",
    "draw_patient",
    "draw_pose",
    "make_dataset",
    "project_volumes",
    "random_stream",
    "read_labelled_ct",
    "render",
    "wheel_source",
]

__getattr__ = old_names(__name__, {"Radiograph": "cxw_monai.rendering.render:RenderedFilm"})
