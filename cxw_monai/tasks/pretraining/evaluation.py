"""Held-out losses of a world model against baselines that a useful one must beat."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor

from cxw_monai.metrics.world.spread import embedding_statistics
from cxw_monai.networks import WorldModel, WorldModelInputs, WorldModelOutput
from cxw_monai.networks.world_model import TERM_VIEWS
from cxw_monai.training.precision import Precision
from cxw_monai.training.processes import unwrapped
from cxw_monai.training.step import scalars_of
from cxw_monai.transforms import IDENTITY_ACTION, TokenMaskSampler

from .step import world_view_inputs

__all__ = ["EvaluationStep", "comparison_lines", "write_evaluation"]

logger = logging.getLogger(__name__)

CONDITIONED = {"action": ("intra", "cross", "domain"), "geometry": ("cross", "global")}
"""Loss terms whose prediction is conditioned on the action or the geometry."""


class EvaluationStep:
    """`iteration_update` of a `SupervisedEvaluator` for a world model.

    Scalars of a batch (averaged over batches by `EpochMeans`):

    - `loss`, `loss_<term>`: as in training, on fixed masks;
    - `mean_token_<term>`: the loss of predicting the batch's mean target token everywhere;
    - `mean_position_<term>`: of predicting the batch's mean token of each place in the grid (terms that predict all
      tokens);
    - `action_withheld_<term>`, `geometry_withheld_<term>`: the model's own loss when the predictor is given that
      nothing was perturbed, or that the other view lies where this one does;
    - `action_shuffled_<term>`, `geometry_shuffled_<term>`: when it is given another pair's;
    - `target_*`, `pooled_*`: collapse monitors of target tokens and of their mean an image.

    Args:
        masks: sampler of token masks; every evaluation starts from the state it has here.
        amp: autocast to `bfloat16`, `none`, or `auto`.
        baselines: compute the withheld and shuffled losses too (four more forward passes).
    """

    def __init__(self, masks: TokenMaskSampler, amp: str = "auto", baselines: bool = True) -> None:
        self.masks, self.precision, self.baselines = masks, Precision(amp), baselines
        self.start = masks.state_dict()

    @torch.no_grad()
    def __call__(self, engine: SupervisedEvaluator, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        if engine.state.iteration == 1:
            self.masks.load_state_dict(self.start)
        model, device = unwrapped(engine.network).eval(), engine.state.device
        inputs = world_view_inputs(batch, self.masks, device, model.settings.perturbs)
        with self.precision.autocast(device):
            output = model(inputs)
            pooled = model.target_encoder(inputs.view1).mean(dim=1)
            scalars = scalars_of({"loss": output.loss, **output.losses})
            scalars.update(mean_token_losses(model, output, inputs))
            if self.baselines:
                for name, changed in withheld(model, inputs).items():
                    terms = CONDITIONED[name.split("_")[0]]
                    losses = model(changed).losses
                    scalars.update({f"{name}_{term}": losses[term].item() for term in terms if term in losses})
        tokens = torch.cat([t.flatten(0, 1) for t in output.targets.values()])
        for name, embeddings in (("target", tokens), ("pooled", pooled)):
            if len(embeddings) > 1:
                scalars.update({f"{name}_{k}": v for k, v in embedding_statistics(embeddings).items()})
        return [{"loss": output.loss, "scalars": scalars, "count": len(inputs.view1)}]


def terms_of(output: WorldModelOutput) -> dict[str, Tensor]:
    """The two targets of each loss term as one `[2B, K, D]`, by the term's name."""
    targets = output.targets
    return {
        term: torch.cat([targets[first], targets[second]])
        for term, (first, second) in TERM_VIEWS.items()
        if first in targets
    }


def mean_token_losses(model: WorldModel, output: WorldModelOutput, inputs: WorldModelInputs) -> dict[str, float]:
    """The model's loss of the batch's mean token and, for terms over all tokens, of each place's mean."""
    count = inputs.target1.shape[1] if inputs.target1 is not None else -1
    losses: dict[str, float] = {}
    for term, target in terms_of(output).items():
        target = target.float()  # [2B, K, D]
        means = {f"mean_token_{term}": target.mean(dim=(0, 1), keepdim=True)}
        if target.shape[1] != count:
            means[f"mean_position_{term}"] = target.mean(dim=0, keepdim=True)
        losses |= {name: model.loss.term(mean.expand_as(target), target).item() for name, mean in means.items()}
    return losses


def withheld(model: WorldModel, inputs: WorldModelInputs) -> dict[str, WorldModelInputs]:
    """Inputs with action or geometry replaced by nothing, or by another pair's, where the model uses them."""
    settings, changed = model.settings, {}
    if "domain" in settings.objectives and settings.condition_on_action:
        identity = torch.tensor(IDENTITY_ACTION).to(inputs.action1).expand_as(inputs.action1)
        changed["action_withheld"] = inputs.replace(action1=identity, action2=identity)
        changed["action_shuffled"] = inputs.replace(
            action1=inputs.action1.roll(1, 0), action2=inputs.action2.roll(1, 0)
        )
    if "global" in settings.objectives and settings.condition_on_geometry:
        zeros = torch.zeros_like(inputs.rel_12)
        changed["geometry_withheld"] = inputs.replace(rel_12=zeros, rel_21=zeros)
        changed["geometry_shuffled"] = inputs.replace(rel_12=inputs.rel_12.roll(1, 0), rel_21=inputs.rel_21.roll(1, 0))
    return changed


def comparison_lines(metrics: Mapping[str, float]) -> list[str]:
    """One line per loss term: `loss_cross 0.412 | explained 58.0% | mean_token 0.981 beaten | ...`.

    `explained` is the share of the targets' variance that the prediction accounts for, `1 - loss / mean_token`: unlike
    the loss it does not improve when the targets merely shrink.
    """
    terms = [n.removeprefix("loss_") for n in metrics if n.startswith("loss_")]
    lines = []
    for term in sorted(terms):
        own = metrics[f"loss_{term}"]
        parts = [f"loss_{term} {own:.4f}"]
        if metrics.get(f"mean_token_{term}"):
            parts.append(f"explained {1 - own / metrics[f'mean_token_{term}']:.1%}")
        for name in sorted(metrics):
            if name.endswith(f"_{term}") and name.startswith(("mean_", "action_", "geometry_")):
                verdict = "beaten" if own < metrics[name] else "NOT beaten"
                parts.append(f"{name.removesuffix('_' + term)} {metrics[name]:.4f} {verdict}")
        lines.append(" | ".join(parts))
    return lines


def write_evaluation(evaluator: SupervisedEvaluator, path: str | Path) -> None:
    """Write an evaluator's metrics to a JSON file and log the comparison with the baselines."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metrics = dict(sorted(evaluator.state.metrics.items()))
    path.write_text(json.dumps(metrics, indent=2) + "\n")
    for line in comparison_lines(metrics):
        logger.info(line)
    logger.info("Wrote %s.", path)
