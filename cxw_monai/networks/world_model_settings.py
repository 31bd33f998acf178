"""What a world model predicts and how its losses are put together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cxw_monai.losses.regularisers import REGULARISERS
from cxw_monai.losses.world_model import MEASURES
from cxw_monai.transforms.hog import HOG_CHANNELS

from .vit import RadiographViT

__all__ = ["OBJECTIVES", "WorldModelSettings"]

OBJECTIVES = ("local", "global", "domain", "pooled")
PAPER_OBJECTIVES = OBJECTIVES[:3]
CHOICES: dict[str, Collection[str]] = {
    "cross_targets": ("all", "masked"),
    "loss": MEASURES,
    "targets": ("latents", "pixels", "both", "hog"),
    "target": ("ema", "online"),
    "regulariser": REGULARISERS,
}


@dataclass(frozen=True)
class WorldModelSettings:
    """What is predicted and how the losses are put together.

    Attributes:
        objectives: any non-empty subset of `local`, `global`, `domain`, `pooled`. Without `domain` and `pooled` the
            context sees clean views; without `local` it sees all patches and all are predicted. `pooled` asks both
            views, and small crops of the film where the inputs have them, for one embedding (`PooledLoss`).
        unified: one prediction carries the tasks together (paper eq. 9-12); otherwise each objective has its own
            forward pass and the losses are summed (paper's "naive sum").
        condition_on_action: otherwise the predictor gets zeros for the action.
        condition_on_geometry: otherwise the predictor gets zeros for the place of the other view.
        cross_targets: tokens of the other view that are predicted: `all` (paper) or `masked` (released code).
        cross_weight: weight of the cross-view loss.
        average_terms: divide the loss by `1 + cross_weight`.
        loss: `l2` or `smooth_l1`, averaged over batch, tokens and channels.
        targets: `latents` of the target encoder, the `pixels` of each patch, or `both`, side by side on the channels.
            With pixels and `local` alone the model is a masked autoencoder (MAE, arXiv 2111.06377). Pixels cannot
            collapse: beside the latents they keep these from losing rank. Or `hog`, histograms of oriented gradients
            of each patch (MaskFeat, arXiv 2112.09133; see `hog_descriptors`).
        target_layers: the target is the mean of the layer-normed outputs of this many last blocks.
        swap_roles: context sees the clean view, target the perturbed one.
        variance_weight: weight of a hinge that keeps the predictions' standard deviation over tokens above 1.
        normalise_pixels: each patch to mean 0 and variance 1, as MAE does; otherwise as the encoder sees it.
        pixel_weight: with `both`, the loss is `(latents + pixel_weight * pixels) / (1 + pixel_weight)`; None averages
            over the channels of both alike.
        target: `ema`, or `online`: the context encoder itself makes the targets and is trained through them, end to
            end, as a regulariser allows (LeJEPA, arXiv 2511.08544); the target encoder is then its copy.
        regulariser: `none`, `sigreg` or `variance_covariance` of the context encoder's tokens.
        regulariser_weight: w in `loss = (1 - w) * prediction + w * regulariser`, from 0 to 1.
        pooled_weight: weight of the objective `pooled`, above 0.
        pooled_regulariser_weight: share of SIGReg of the projected embeddings in the objective `pooled`, from 0 to 1.
        projector_dim: channels of the projected embeddings of the objective `pooled`.
    """

    objectives: Sequence[str] = PAPER_OBJECTIVES
    unified: bool = True
    condition_on_action: bool = True
    condition_on_geometry: bool = True
    cross_targets: str = "all"
    cross_weight: float = 1.0
    average_terms: bool = True
    loss: str = "l2"
    targets: str = "latents"
    target_layers: int = 1
    swap_roles: bool = False
    variance_weight: float = 0.0
    normalise_pixels: bool = True
    pixel_weight: float | None = None
    target: str = "ema"
    regulariser: str = "none"
    regulariser_weight: float = 0.05
    pooled_weight: float = 1.0
    pooled_regulariser_weight: float = 0.05
    projector_dim: int = 64

    def __post_init__(self) -> None:
        if not self.objectives or not set(self.objectives) <= set(OBJECTIVES):
            raise ValueError(f"objectives must be a non-empty subset of {OBJECTIVES}, got {self.objectives!r}.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, got {getattr(self, name)!r}.")
        if self.swap_roles and not self.unified:
            raise ValueError("swap_roles is defined for unified predictions only.")
        if self.cross_weight < 0 or (self.cross_weight == 0 and tuple(self.objectives) == ("global",)):
            raise ValueError(f"cross_weight must be positive, or 0 beside other objectives, got {self.cross_weight}.")
        if self.target_layers < 1:
            raise ValueError(f"target_layers must be at least 1, got {self.target_layers}.")
        if self.pixel_weight is not None and (self.targets != "both" or self.pixel_weight < 0):
            raise ValueError(f"pixel_weight needs targets 'both' and 0 or more, got {self.pixel_weight}.")
        for name in ("regulariser_weight", "pooled_regulariser_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")
        if self.pooled_weight <= 0 or self.projector_dim < 1:
            raise ValueError(
                f"pooled_weight must be above 0 and projector_dim at least 1, got {self.pooled_weight} and "
                f"{self.projector_dim}."
            )
        if "pooled" in self.objectives and not self.unified:
            raise ValueError("The objective 'pooled' is defined for unified predictions only.")

    @property
    def predicts(self) -> bool:
        """Whether any objective predicts tokens, so that a target is needed."""
        return bool(set(self.objectives) - {"pooled"})

    @property
    def perturbs(self) -> bool:
        """Whether perturbed views are needed."""
        return "domain" in self.objectives or "pooled" in self.objectives

    def target_channels(self, encoder: RadiographViT) -> int:
        """Channels of a target token, which the predictor's `out_dim` must be."""
        pixels = encoder.in_channels * encoder.patch_size**2
        widths = {"latents": encoder.embed_dim, "pixels": pixels, "hog": HOG_CHANNELS * encoder.in_channels}
        return widths["latents"] + pixels if self.targets == "both" else widths[self.targets]

    @classmethod
    def parity(cls, **overrides: Any) -> WorldModelSettings:
        """The released code's behaviour: cross-view loss on the masked tokens only."""
        return replace(cls(cross_targets="masked"), **overrides)
