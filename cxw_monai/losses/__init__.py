"""Losses: a world model's terms, regularisers of embeddings, Dice and cross-entropy of masks."""

from .dice_bce import DiceBCELoss
from .regularisers import REGULARISERS, regulariser, sigreg, variance_covariance
from .world_model import MEASURES, WorldModelLoss, token_std

__all__ = [
    "MEASURES",
    "REGULARISERS",
    "DiceBCELoss",
    "WorldModelLoss",
    "regulariser",
    "sigreg",
    "token_std",
    "variance_covariance",
]
