"""The learning benchmark's arms are settings that the pretraining bundle has, and make a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from cxw_monai.networks import RadiographEmbedder, WorldModel, radiograph_vit
from cxw_monai.tasks.pretraining.settings import PretrainingSettings

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "chexworld_pretraining" / "configs"


def arms_of(name: str) -> dict[str, Any]:
    return {k: v for k, v in yaml.safe_load((CONFIGS / name).read_text()).items() if not k.startswith("_")}


ARMS, TRANSFER_ARMS = arms_of("learning_arms.yaml"), arms_of("transfer_arms.yaml")
BENCHMARK_KEYS = {"presets", "start_from_arm", "add_rendered", "share_of_films", "minutes"}


def network(presets: list[str], **settings: Any) -> WorldModel:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), *(str(CONFIGS / "presets" / f"{name}.yaml") for name in presets)])
    parser.update(settings)
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_sets_what_there_is_and_fits(name: str):
    arm = dict(ARMS[name])
    settings = {key: value for key, value in arm.items() if key not in BENCHMARK_KEYS}
    assert settings.keys() <= PretrainingSettings.model_fields.keys()  # MONAI ignores a misspelt key
    assert arm.get("start_from_arm", "mae") in ARMS
    made = network(["learning_base", *arm.get("presets", ())], **settings)
    assert made.settings.regulariser == arm.get("regulariser", "none")
    assert made.settings.pixel_weight == arm.get("pixel_weight")


@pytest.mark.parametrize("name", TRANSFER_ARMS)
def test_every_arm_of_the_transfer_benchmark_sets_what_there_is(name: str):
    settings = {key: value for key, value in TRANSFER_ARMS[name].items() if key != "presets"}
    assert settings.keys() <= PretrainingSettings.model_fields.keys()
    start = settings.pop("start_from")
    given = {"start_from": str(CONFIGS.parent / start)} if start else {}
    made = network(["learning_base", *TRANSFER_ARMS[name]["presets"]], **settings, **given)
    assert made.settings.regulariser == "sigreg" and ("pooled" in settings["objectives"]) == hasattr(made, "projector")


def test_the_preset_of_many_films_is_the_arm_that_was_chosen():
    """All but its length and rates, and the share of films held out, which the benchmark sets."""
    preset = PretrainingSettings(
        **yaml.safe_load((CONFIGS / "presets" / "multicrop_tiny.yaml").read_text())
    ).model_dump()
    base = [
        yaml.safe_load((CONFIGS / "presets" / f"{name}.yaml").read_text()) for name in ("learning_base", "mae_tiny")
    ]
    arm = {k: v for k, v in TRANSFER_ARMS["pooled_mae_strong_sigreg"].items() if k not in ("presets", "start_from")}
    given = {key: value for one in (*base, arm) for key, value in one.items()}
    chosen = PretrainingSettings(**given).model_dump()
    length = {"epochs", "warmup_epochs", "decay_epochs", "monitor_every", "save_interval", "epoch_films"}
    assert {name for name, value in chosen.items() if preset[name] != value} == length | {
        "lr",
        "ema",
        "ema_end",
        "val_fraction",
    }


def test_the_preset_of_the_shipped_encoder_is_the_arm_that_made_it():
    """All but how long it runs and what it says; an arm's schedules fit its minutes."""

    def settings(*names: str, **own: Any) -> dict[str, Any]:
        read = [yaml.safe_load((CONFIGS / "presets" / f"{name}.yaml").read_text()) for name in names]
        given = {key: value for one in (*read, own) for key, value in one.items()}
        return PretrainingSettings(**given).model_dump()

    presets = ("learning_base", *ARMS["long"]["presets"])
    own = {key: value for key, value in ARMS["long"].items() if key not in BENCHMARK_KEYS}
    trained, preset = settings(*presets, **own), settings("cpu_tiny")
    differing = {name for name, value in trained.items() if preset[name] != value}
    assert differing == {"epochs", "warmup_epochs", "monitor_every"}
    again = {key: value for key, value in ARMS["longer"].items() if key not in BENCHMARK_KEYS}
    assert again == own and ARMS["longer"]["start_from_arm"] == "long"
    made = [network(["cpu_tiny"]), network([*presets], **own)]
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in made]
    assert shapes[0] == shapes[1] and made[0].settings == made[1].settings


def test_a_run_starts_from_an_encoder_file_context_and_target_alike(tmp_path: Path):
    torch.manual_seed(0)
    encoder = radiograph_vit("tiny", image_size=160)
    torch.save(RadiographEmbedder(encoder).state_dict(), tmp_path / "encoder.pt")
    made = network(["learning_base"], start_from=str(tmp_path / "encoder.pt"))
    for name, value in encoder.state_dict().items():
        assert torch.equal(made.encoder.state_dict()[name], value), name
        assert torch.equal(made.target_encoder.state_dict()[name], value), name
