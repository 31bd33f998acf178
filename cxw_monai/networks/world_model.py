"""World model of radiographs: context encoder, EMA target encoder and predictor.

Source: CheXWorld (arXiv 2504.13820), sections 3 and 4. Three predictions in latent space: local anatomy (masked
patches of the same view), global layout (another crop, given where it lies) and domain variation (the clean film
from its perturbed copy, given the perturbation).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxw_monai.losses.world_model import WorldModelLoss, token_std
from cxw_monai.transforms.hog import hog_descriptors

from .layers import init_weights
from .predictor import WorldModelPredictor
from .rows import gather_tokens
from .vit import RadiographViT
from .world_model_settings import WorldModelSettings

__all__ = ["WorldModel", "WorldModelInputs", "WorldModelOutput", "normalised"]

TARGET_NORM_EPS = 1e-5
TERM_VIEWS = {
    "intra": ("11", "22"),
    "cross": ("21", "12"),
    "local": ("local1", "local2"),
    "domain": ("domain1", "domain2"),
    "global": ("global21", "global12"),
}
"""Names of the two views of each term of the loss."""
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Predictions and targets `[2B, K, D]` by the term's name, both views on the batch axis."""


@dataclass
class WorldModelInputs:
    """A batch of world view pairs.

    Attributes:
        view1, view2: clean crops `[B, C, H, W]` in [0, 1].
        perturbed1, perturbed2: their perturbed copies, the same shape.
        action1, action2: `[B, A]` perturbations that made the copies.
        rel_12, rel_21: `[B, 4]`; `rel_12` places view 1 relative to view 2 (prediction of view 1 from view 2).
        context1, context2: `[B, Kc]` int64 visible tokens; None for all.
        target1, target2: `[B, Kt]` int64 masked tokens to predict; None for all.
        local_crops: `[B, L, C, h, w]` small crops, perturbed, for the objective `pooled`; None for none.
    """

    view1: Tensor
    view2: Tensor
    perturbed1: Tensor
    perturbed2: Tensor
    action1: Tensor
    action2: Tensor
    rel_12: Tensor
    rel_21: Tensor
    context1: Tensor | None = None
    context2: Tensor | None = None
    target1: Tensor | None = None
    target2: Tensor | None = None
    local_crops: Tensor | None = None

    def replace(self, **changes: Any) -> WorldModelInputs:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> WorldModelInputs:
        """A copy on a device, floating tensors in `dtype`."""
        moved = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if value is not None:
                value = value.to(device, dtype) if value.is_floating_point() else value.to(device)
            moved[name] = value
        return WorldModelInputs(**moved)


@dataclass
class WorldModelOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar to minimise.
        losses: its terms by name: `intra` and `cross` when unified, else one per objective.
        predictions: predicted tokens `[B, K, D]` by name: when unified `11`, `22` within a view, `21` view 2 from
            view 1, `12` view 1 from view 2; else the objective and the same numbers. Where nothing but `pooled` is
            asked for, projected embeddings `[V * B, 1, P]` of all crops, and as targets `[B, 1, P]` their centres.
        targets: what each prediction is held against, by the same names.
        contexts: the context encoder's tokens, `[2B, Kc, D]` a forward pass of it.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    predictions: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    contexts: list[Tensor] = field(default_factory=list)

    def prediction_std(self) -> Tensor:
        """Standard deviation of predictions over tokens, averaged over channels, samples and terms."""
        return token_std(self.predictions.values())


def normalised(tokens: Tensor) -> Tensor:
    """Layer norm over channels without affine parameters (eps 1e-5), as targets are."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=TARGET_NORM_EPS)


def paired(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Both views on the batch axis; None for both stays None."""
    if (first is None) != (second is None):
        raise ValueError("Token indices were given for one view only: give both or neither.")
    return None if first is None or second is None else torch.cat([first, second])


def by_view(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The halves of each term's `[2B, K, D]` by their names in `TERM_VIEWS`."""
    return {
        view: half for name, both in terms.items() for view, half in zip(TERM_VIEWS[name], both.chunk(2), strict=True)
    }


def other_view(tokens: Tensor) -> Tensor:
    """`[2B, ...]` with the two views swapped."""
    return tokens.roll(tokens.shape[0] // 2, dims=0)


def new_projector(channels: int, out_channels: int) -> nn.Sequential:
    """MLP of mean tokens for the objective `pooled`, thrown away after training (LeJEPA, arXiv 2511.08544).

    Mean tokens and embeddings are standardised over the batch: films differ little in their mean tokens at first, and
    without a fixed scale the invariance is won by shrinking before SIGReg acts.
    """
    hidden = 4 * channels
    layers = [batch_norm(channels), nn.Linear(channels, hidden), batch_norm(hidden), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(hidden, out_channels), batch_norm(out_channels)).apply(init_weights)


def batch_norm(channels: int) -> nn.BatchNorm1d:
    """Of the batch at hand, in evaluation too: without parameters and running statistics."""
    return nn.BatchNorm1d(channels, affine=False, track_running_stats=False)


class WorldModel(nn.Module):
    """Encoder, EMA target encoder and predictor with the losses of the three tasks.

    Args:
        encoder: context encoder. The target is a copy of it that never takes gradients and stays in evaluation mode.
        predictor: its `grid` must be the encoder's, its `out_dim` the channels of a target token
            (`WorldModelSettings.target_channels`).
        settings: see `WorldModelSettings`.

    Raises:
        ValueError: when the predictor does not fit the encoder.
    """

    def __init__(
        self, encoder: RadiographViT, predictor: WorldModelPredictor, settings: WorldModelSettings | None = None
    ) -> None:
        super().__init__()
        self.settings = settings or WorldModelSettings()
        width = self.settings.target_channels(encoder)
        if predictor.grid != encoder.grid or predictor.predictor_proj.out_features != width:
            raise ValueError(
                f"The predictor (grid {predictor.grid}, out_dim {predictor.predictor_proj.out_features}) does not fit "
                f"the encoder (grid {encoder.grid}, embed_dim {encoder.embed_dim}) with {self.settings.targets} as "
                f"targets: it must give {width} channels."
            )
        self.encoder = encoder
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.predictor = predictor
        if "pooled" in self.settings.objectives:
            self.projector = new_projector(encoder.embed_dim, self.settings.projector_dim)

    @property
    def loss(self) -> WorldModelLoss:
        """What the settings make a loss of."""
        return WorldModelLoss(self.settings, self.encoder.embed_dim)

    def train(self, mode: bool = True) -> WorldModel:
        """As usual, but the target encoder stays in evaluation mode."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target's parameters towards the encoder's: `target = m * target + (1 - m) * encoder`.

        Args:
            momentum: m in [0, 1]; taken as 0 where the targets are the encoder's own.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], got {momentum}.")
        if self.settings.target == "online":
            momentum = 0.0
        targets = [p.data for p in self.target_encoder.parameters()]
        sources = [p.data for p in self.encoder.parameters()]
        torch._foreach_lerp_(targets, sources, 1 - momentum)

    def target_tokens(self, image: Tensor) -> Tensor:
        """Target tokens `[B, N, D]` of full images `[B, C, H, W]`; gradients only of latents where `online`."""
        online = self.settings.target == "online"
        encoder = self.encoder if online else self.target_encoder
        parts = []
        with torch.set_grad_enabled(online and torch.is_grad_enabled()):
            if self.settings.targets == "hog":
                return hog_descriptors(image, encoder.patch_size)
            if self.settings.targets != "pixels":
                parts.append(self._target_latents(image, encoder))
            if self.settings.targets != "latents":
                pixels = encoder.patches(image)
                parts.append(normalised(pixels) if self.settings.normalise_pixels else pixels)
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _target_latents(self, image: Tensor, encoder: RadiographViT) -> Tensor:
        count = self.settings.target_layers
        if count == 1:
            return normalised(encoder(image))
        outputs = encoder.intermediate_layers(image, list(range(-count, 0)))
        return torch.stack([normalised(tokens) for tokens in outputs]).mean(dim=0)

    def predict(
        self,
        context: Tensor,
        action: Tensor,
        context_index: Tensor | None,
        target_index: Tensor | None,
        rel: Tensor | None,
        grid: tuple[int, int],
    ) -> Tensor:
        """Call the predictor with what the settings let it know.

        Args:
            context: `[2B, Kc, D]`, both views on the batch axis.
            action: `[2B, A]` actions of the context views.
            context_index, target_index: `[2B, Kc]` and `[2B, Kt]` int64, or None for all tokens.
            rel: `[2B, 4]` places of the target views, or None for the same views.
            grid: rows and columns of tokens of a view.

        Returns:
            `[2B, Kt, D]`.
        """
        if not self.settings.condition_on_action:
            action = torch.zeros_like(action)
        if not self.settings.condition_on_geometry:
            rel = None
        return self.predictor(context, action, context_index, target_index, rel, grid)

    def forward(self, inputs: WorldModelInputs) -> WorldModelOutput:
        """Losses, predictions and targets of a batch of world view pairs."""
        pairs, contexts = self._unified(inputs) if self.settings.unified else self._separate(inputs)
        predictions, targets = (by_view({name: pair[i] for name, pair in pairs.items()}) for i in (0, 1))
        pooled = None
        if "pooled" in self.settings.objectives:
            pooled = self.projected(contexts[0], inputs.local_crops)  # [V, B, P]
            if not pairs:
                predictions = {"pooled": pooled.flatten(0, 1).unsqueeze(1)}
                targets = {"pooled": pooled[:2].mean(dim=0).unsqueeze(1)}
        losses = self.loss(pairs, contexts, pooled)
        return WorldModelOutput(losses.pop("loss"), losses, predictions, targets, contexts)

    def projected(self, context: Tensor, local_crops: Tensor | None) -> Tensor:
        """Projected mean tokens of both views and of the small crops.

        Args:
            context: `[2B, K, D]` tokens of both views.
            local_crops: `[B, L, C, h, w]` or None.

        Returns:
            `[2 + L, B, P]`, the two views first.
        """
        pooled = context.mean(dim=1)  # [2B, D]
        if local_crops is not None:
            small = self.encoder(local_crops.transpose(0, 1).flatten(0, 1)).mean(dim=1)  # [L * B, D]
            pooled = torch.cat([pooled, small])
        return self.projector(pooled).unflatten(0, (-1, len(context) // 2))

    def _unified(self, inputs: WorldModelInputs) -> tuple[Pairs, list[Tensor]]:
        """All chosen objectives in one prediction within each view and one across (paper eq. 9-12)."""
        settings = self.settings
        grid = self.encoder.grid_of(inputs.view1)
        clean = torch.cat([inputs.view1, inputs.view2])  # [2B, C, H, W]
        action = torch.cat([inputs.action1, inputs.action2])
        perturbed = clean
        if settings.perturbs:
            perturbed = torch.cat([inputs.perturbed1, inputs.perturbed2])
        if "domain" not in settings.objectives:
            action = torch.zeros_like(action)
        seen, held = (clean, perturbed) if settings.swap_roles else (perturbed, clean)
        masked = "local" in settings.objectives
        context_index = paired(inputs.context1, inputs.context2) if masked else None
        target_index = paired(inputs.target1, inputs.target2) if masked else None
        context = self.encoder(seen, context_index)  # [2B, Kc, D]
        pairs: Pairs = {}
        if not settings.predicts:
            return pairs, [context]
        targets = self.target_tokens(held)  # [2B, N, D]
        if masked or "domain" in settings.objectives:
            prediction = self.predict(context, action, context_index, target_index, None, grid)
            pairs["intra"] = prediction, gather_tokens(targets, target_index)
        if "global" in settings.objectives:
            other_index = paired(inputs.target2, inputs.target1)
            other_index = other_index if masked and settings.cross_targets == "masked" else None
            rel = torch.cat([inputs.rel_21, inputs.rel_12])
            prediction = self.predict(context, action, context_index, other_index, rel, grid)
            pairs["cross"] = prediction, gather_tokens(other_view(targets), other_index)
        return pairs, [context]

    def _separate(self, inputs: WorldModelInputs) -> tuple[Pairs, list[Tensor]]:
        """Each chosen objective by itself on the views it is defined for (the paper's naive sum of losses)."""
        objectives = self.settings.objectives
        pairs: Pairs = {}
        contexts: list[Tensor] = []
        grid = self.encoder.grid_of(inputs.view1)
        clean = torch.cat([inputs.view1, inputs.view2])
        action = torch.cat([inputs.action1, inputs.action2])
        unperturbed = torch.zeros_like(action)
        targets = self.target_tokens(clean)  # [2B, N, D]
        if "local" in objectives:
            context_index = paired(inputs.context1, inputs.context2)
            target_index = paired(inputs.target1, inputs.target2)
            contexts.append(self.encoder(clean, context_index))
            prediction = self.predict(contexts[-1], unperturbed, context_index, target_index, None, grid)
            pairs["local"] = prediction, gather_tokens(targets, target_index)
        if "global" in objectives:
            rel = torch.cat([inputs.rel_21, inputs.rel_12])
            contexts.append(self.encoder(clean))
            pairs["global"] = self.predict(contexts[-1], unperturbed, None, None, rel, grid), other_view(targets)
        if "domain" in objectives:
            contexts.append(self.encoder(torch.cat([inputs.perturbed1, inputs.perturbed2])))
            pairs["domain"] = self.predict(contexts[-1], action, None, None, None, grid), targets
        return pairs, contexts
