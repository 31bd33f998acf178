"""Runs of the bundle's own training, and scores of what they made."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigWorkflow

from benchmarks.command import training_workflow
from benchmarks.learning.benchmark import config_hash
from cxw_monai.tasks.classification.evaluation import calibrate_best
from cxw_monai.training.checkpoint_files import CheckpointFiles, read_checkpoint
from cxw_monai.weights.classifier import read_classifier, read_settings
from cxw_monai.weights.kinds import save_network

from .films import TASKS

__all__ = ["BUNDLE", "Run", "chosen", "finished", "score", "ship", "test", "train"]

BUNDLE = Path(__file__).parents[2] / "bundles" / "chexworld_classification"
RECIPES = Path(__file__).with_name("recipes.yaml")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        task: one of `TASKS`.
        arm: name of the start.
        how: `frozen` or `finetuned`.
        fraction: share of the training patients.
        seed: of all random numbers.
    """

    task: str
    arm: str
    how: str
    fraction: float = 1.0
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.task}_{self.arm}_{self.how}_{100 * self.fraction:g}_{self.seed}"

    def recipe(self) -> dict[str, Any]:
        """Presets and settings, from `recipes.yaml`."""
        recipes: dict[str, Any] = yaml.safe_load(RECIPES.read_text())
        kind = self.task.partition("_")[0]
        if self.how == "finetuned" and kind not in recipes["finetuned"]:
            raise ValueError(f"{RECIPES}: no recipe to fine-tune for {self.task}; give --how frozen.")
        recipe = recipes["frozen"] if self.how == "frozen" else recipes["finetuned"][kind]
        share, arm = (
            recipe.get(name, {}).get(key, {}) for name, key in (("shares", self.fraction), ("arms", self.arm))
        )
        return {"presets": recipe["presets"], "settings": recipe["settings"] | share | arm}


def train(run: Run, start: str, films: Path, output: Path) -> Path:
    """Train a run, or resume it; its folder, in which `run.json` says what it cost.

    Args:
        run: what to train.
        start: file or bundle of the encoder; `none` for fresh weights.
        films: folder of the manifests.
        output: folder of all runs.
    """
    recipe = run.recipe()
    settings = {"encoder_ckpt": start, **recipe["settings"]}
    if start == "none":
        settings["network_size"] = "tiny"
    folder = output / f"{run.name}_{config_hash({'presets': recipe['presets'], **settings})}"
    done = folder / "run.json"
    if done.exists():
        return folder
    began = time.process_time()
    resume = any(folder.glob("checkpoint_*.pt"))
    workflow = training_workflow(
        BUNDLE, recipe["presets"], folder, datalist=str(films / f"{run.task}.csv"), splits="column",
        cache_dir=str(output / "cache"), classes=list(TASKS[run.task].classes), label_fraction=run.fraction,
        seed=run.seed, num_workers=0, resume=resume, **settings,
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    best = workflow.parser.get_parsed_content("train::best")
    cost = {"seconds": round(time.process_time() - began), "epoch": best.epoch, "validation": best.score}
    if run.how == "finetuned":
        cost["average"] = _averaged(workflow, folder)
    workflow.finalize()
    done.write_text(json.dumps({**asdict(run), **cost}))
    for path in [*CheckpointFiles(folder).all(), folder / "model.safetensors"]:
        path.unlink(missing_ok=True)
    logger.info("%s: %s", run.name, cost)
    return folder


def _averaged(workflow: ConfigWorkflow, folder: Path) -> float:
    """Validation score of the mean of the last checkpoints' weights, which go to `average/model.pt`, calibrated."""
    parsed = workflow.parser.get_parsed_content
    evaluator, scores, network = (parsed(name) for name in ("validate::evaluator", "validate::scores", "network_def"))
    states = [read_checkpoint(path)["model"] for path in CheckpointFiles(folder).all()]
    network.load_state_dict({name: torch.stack([one[name] for one in states]).mean(dim=0) for name in states[0]})
    path = folder / "average" / "model.pt"
    path.parent.mkdir(exist_ok=True)
    save_network(network, replace(read_settings(folder / "model.pt"), temperatures=(), operating_points={}), path)
    calibrate_best(evaluator, scores, network, path)
    return float(evaluator.state.metrics["score"])


def chosen(folder: Path) -> Path:
    """The weights of a run that are better on the validation films: the best epoch's, or the average's."""
    record = json.loads((folder / "run.json").read_text())
    return folder / ("average/model.pt" if record.get("average", 0) >= record["validation"] else "model.pt")


def score(model: Path, name: str, films: Path, output: Path) -> Path:
    """Run the bundle's evaluation on all films of a manifest; its folder, which is left as it is where it is there.

    Args:
        model: file of the classifier.
        name: of the manifest, such as `paediatric_test`.
        films: folder of the manifests.
        output: folder of all runs.
    """
    folder = model.parent / name
    if not (folder / "evaluation" / "summary.json").exists():
        configs = BUNDLE / "configs"
        workflow = ConfigWorkflow(
            config_file=[str(configs / "train.json"), str(configs / "evaluate.json")],
            meta_file=str(configs / "metadata.json"), logging_file=False, workflow_type="train",
            bundle_root=str(BUNDLE), datalist=str(films / f"{name}.csv"), ckpt=str(model), subset="all",
            output_dir=str(folder), cache_dir=str(output / "cache"), num_workers=0,
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    return folder / "evaluation"


def finished(output: Path) -> list[tuple[Run, dict[str, Any], Path]]:
    """Runs that have ended, with what they cost and their folders."""
    found = []
    for path in sorted(output.glob("*/run.json")):
        record = json.loads(path.read_text())
        found.append((Run(*(record.pop(one.name) for one in fields(Run))), record, path.parent))
    return found


def test(films: Path, output: Path) -> None:
    """Score every run's chosen weights on the test films of its task."""
    for run, _, folder in finished(output):
        for name in TASKS[run.task].tests:
            score(chosen(folder), f"{run.task}_{name}", films, output)


test.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's


def ship(model: Path, path: Path) -> None:
    """Write a classifier with weights of 16 bits."""
    settings, network = read_classifier(model)
    for parameter in network.parameters():
        parameter.data = parameter.data.half()
    save_network(network, settings, path)
