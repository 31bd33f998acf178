"""Networks: position tables, radiograph ViT, predictor and world model."""

from .embedder import RadiographEmbedder
from .positions import relative_table, sincos_table, table_order
from .predictor import WorldModelPredictor
from .vit import VIT_SIZES, RadiographViT, radiograph_vit
from .world_model import (
    OBJECTIVES,
    WorldModel,
    WorldModelInputs,
    WorldModelOutput,
    WorldModelSettings,
    normalised,
)

__all__ = [
    "OBJECTIVES",
    "VIT_SIZES",
    "RadiographEmbedder",
    "RadiographViT",
    "WorldModel",
    "WorldModelInputs",
    "WorldModelOutput",
    "WorldModelPredictor",
    "WorldModelSettings",
    "normalised",
    "radiograph_vit",
    "relative_table",
    "sincos_table",
    "table_order",
]
