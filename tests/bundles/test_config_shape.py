"""The training configs are of the shape that a reader of MONAI's model zoo knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TRAINING = sorted(BUNDLES.glob("*/configs/train.json"))
CONFIGS = [path for path in sorted(BUNDLES.glob("*/configs/*.json")) if path.name != "metadata.json"]
LISTS = ("initialize", "run", "finalize")


def strings(value: Any) -> list[str]:
    """All texts in a config."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in strings(part)]


def handlers(config: dict[str, Any], block: str) -> set[str]:
    """Class names of a block's handlers."""
    return {one["_target_"].split(".")[-1] for one in config[block]["handlers"]}


def test_the_bundles_train():
    assert {path.parts[-3] for path in TRAINING} == {
        "chexworld_pretraining",
        "chexworld_segmentation",
        "chexworld_classification",
        "chexworld_landmarks",
    }


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.parts[-3])
def test_a_training_config_is_short(path: Path):
    config = json.loads(path.read_text())
    assert len(config) <= 60
    assert sum(text.startswith("$") for text in strings(config)) <= 40


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.parts[-3])
def test_a_training_config_has_the_blocks_and_handlers_of_the_model_zoo(path: Path):
    config = json.loads(path.read_text())
    shared = {"preprocessing", "dataset", "dataloader", "inferer", "handlers"}
    assert shared | {"trainer"} <= config["train"].keys()
    assert shared | {"evaluator", "key_metric"} <= config["validate"].keys()
    assert config["validate"]["evaluator"]["key_val_metric"] == "@validate::key_metric"
    expected = {"ValidationHandler", "StatsHandler", "TensorBoardStatsHandler"}
    if "pretraining" not in path.parts[-3]:
        expected |= {"EarlyStopHandler"}
        assert config["train"]["best"]["_target_"].endswith(".CheckpointSaver")
        assert "@train::best" in strings(config["train"]["handlers"])
    assert expected <= handlers(config, "train")
    assert {"StatsHandler", "TensorBoardStatsHandler"} <= handlers(config, "validate")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}_{path.stem}")
def test_no_expression_is_there_for_its_side_effect(path: Path):
    """In the lists that MONAI runs there are components and engines' `run` alone."""
    config = json.loads(path.read_text())
    for text in [part for name in LISTS for part in config.get(name, ()) if isinstance(part, str)]:
        assert text.startswith("@") or (text.startswith("$") and "evaluator.run()" in text), text
    for text in strings(config):
        assert "next(" not in text and "lambda" not in text and text != "$None", text
