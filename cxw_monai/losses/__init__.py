"""Losses: a world model's terms, regularisers of embeddings, of masks, of classes, of heat maps."""

from .classification import MultiClassLoss, MultiLabelLoss
from .dice_bce import DiceBCELoss
from .heat_maps import HeatMapLoss
from .regularisers import REGULARISERS, regulariser, sigreg, variance_covariance
from .world_model import MEASURES, WorldModelLoss, token_std

__all__ = [
    "MEASURES",
    "REGULARISERS",
    "DiceBCELoss",
    "HeatMapLoss",
    "MultiClassLoss",
    "MultiLabelLoss",
    "WorldModelLoss",
    "regulariser",
    "sigreg",
    "token_std",
    "variance_covariance",
]
