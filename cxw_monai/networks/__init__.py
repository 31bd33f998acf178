"""Networks: position tables, radiograph ViT, predictor, world model, segmentation, classification and landmarks."""

from .classifier import ClassProbabilities, RadiographClassifier, radiograph_classifier
from .decoders import synchronise_batch_norm
from .embedder import RadiographEmbedder
from .landmarker import HeatMapPoints, RadiographLandmarker, radiograph_landmarker
from .layers import Block, configure_blocks
from .positions import relative_table, sincos_table, table_order
from .predictor import WorldModelPredictor
from .resizing import resize_encoder, resize_patch_embedding
from .segmenter import RadiographSegmenter, radiograph_segmenter
from .vit import VIT_SIZES, RadiographViT, radiograph_vit
from .whole_film_network import WholeFilmNetwork
from .world_model import WorldModel, WorldModelInputs, WorldModelOutput, normalised
from .world_model_settings import OBJECTIVES, WorldModelSettings

__all__ = [
    "OBJECTIVES",
    "VIT_SIZES",
    "Block",
    "ClassProbabilities",
    "HeatMapPoints",
    "RadiographClassifier",
    "RadiographEmbedder",
    "RadiographLandmarker",
    "RadiographSegmenter",
    "RadiographViT",
    "WholeFilmNetwork",
    "WorldModel",
    "WorldModelInputs",
    "WorldModelOutput",
    "WorldModelPredictor",
    "WorldModelSettings",
    "configure_blocks",
    "normalised",
    "radiograph_classifier",
    "radiograph_landmarker",
    "radiograph_segmenter",
    "radiograph_vit",
    "relative_table",
    "resize_encoder",
    "resize_patch_embedding",
    "sincos_table",
    "synchronise_batch_norm",
    "table_order",
]
