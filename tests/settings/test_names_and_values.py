"""Settings of both bundles, as the command line, files and programs give them; no network is made and no film read."""

import json
import re
import sys
from pathlib import Path

import fire
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.scripts import run

from cxw_monai.inference.bundle_settings import InferenceSettings
from cxw_monai.inference.classify_settings import ClassifySettings
from cxw_monai.settings import SettingError, source
from cxw_monai.settings.command_line import typed
from cxw_monai.tasks.classification.settings import ClassificationScoringSettings, ClassificationSettings
from cxw_monai.tasks.pretraining.settings import EmbeddingSettings, EvaluationSettings, PretrainingSettings
from cxw_monai.tasks.segmentation.settings import FineTuningSettings, ScoringSettings

BUNDLES = Path(__file__).parents[2] / "bundles"
PRETRAINING, SEGMENTATION = BUNDLES / "chexworld_pretraining/configs", BUNDLES / "chexworld_segmentation/configs"
CLASSIFICATION = BUNDLES / "chexworld_classification/configs"
TRAIN, INFER = PRETRAINING / "train.json", SEGMENTATION / "inference.json"
ONLY_CHECK = ["@settings"]
RUNS = {  # every way to run a bundle: its files
    "pretraining": [TRAIN],
    "evaluation": [TRAIN, PRETRAINING / "presets/cpu_tiny.yaml", PRETRAINING / "evaluate.json"],
    "embedding": [PRETRAINING / "inference.json", PRETRAINING / "presets/vit_base_parity.yaml"],
    "processes": [TRAIN, PRETRAINING / "multi_gpu_train.json", PRETRAINING / "fsdp_train.json"],
    "segmentation": [SEGMENTATION / "train.json", SEGMENTATION / "presets/sim_to_real.yaml",
                     SEGMENTATION / "presets/film_appearance.yaml", SEGMENTATION / "presets/mirrored.yaml"],
    "scoring": [SEGMENTATION / "train.json", SEGMENTATION / "presets/pneumothorax.yaml",
                SEGMENTATION / "evaluate.json"],
    "segmentation processes": [SEGMENTATION / "train.json", SEGMENTATION / "multi_gpu_train.json"],
    "inference": [INFER],
}  # fmt: skip


def reason(error):
    """The message of the package's own error in a chain."""
    while not isinstance(error, SettingError):
        error = error.__cause__ or error.__context__
    return str(error)


def program(files, **settings):
    """Settings after the check, given as a program gives them."""
    workflow = ConfigWorkflow(
        [str(file) for file in files], workflow_type=None, logging_file=False, initialize=ONLY_CHECK, **settings
    )
    workflow.initialize()
    return workflow.parser


def refused(call, *arguments, **settings):
    with pytest.raises(RuntimeError) as caught:
        call(*arguments, **settings)
    return reason(caught.value)


@pytest.fixture
def command(monkeypatch):
    """Settings after the check, typed after `python -m monai.bundle run`."""

    def typed_in(files, *arguments, run_id="run"):
        listed = "[" + ",".join(f"'{file}'" for file in files) + "]"
        line = ["run", run_id, "--config_file", listed, "--initialize", str(ONLY_CHECK), "--run", str(ONLY_CHECK),
                "--logging_file", "False", *arguments]  # fmt: skip
        made = []
        monkeypatch.setattr(sys, "argv", ["monai.bundle", *line])
        monkeypatch.setattr(source, "runs_bundle_command", lambda: True)
        monkeypatch.setattr(ConfigWorkflow, "finalize", lambda self: made.append(self))
        fire.Fire({"run": run}, command=line)
        return made[0].parser

    return typed_in


@pytest.mark.parametrize("name", RUNS)
def test_every_run_takes_its_own_files_and_refuses_a_misspelt_setting(name, tmp_path, monkeypatch):
    for variable, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(variable, value)
    model = {"ckpt": str(SEGMENTATION.parent / "models/model.pt")} if name == "scoring" else {}  # has the structures
    program(RUNS[name], _desc_="a comment", _own_note_=1, **model)
    said = refused(program, RUNS[name], devise="cpu")
    assert said.startswith("devise (given in the settings): the bundle has no such setting, did you mean device?")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (
            ["--treshold", "0.9"],
            "treshold (given on the command line): the bundle has no such setting, did you mean thr",
        ),
        (["--treshold=0.9"], "did you mean threshold?"),
        (["-treshold", "0.9"], "did you mean threshold?"),
        (["--Threshold", "0.9"], "did you mean threshold?"),
        (["--treshold"], "--treshold has no value, and the bundle has no such setting, did you mean threshold?"),
        (["--threshold"], "--threshold has no value. Give --NAME VALUE"),
        (["--threshold", "--voi", "lut"], "--threshold has no value"),
        (["\N{EN DASH}threshold", "0.9"], "no hyphen), did you mean threshold?"),
        (["threshold=0.9"], "'threshold=0.9' on the command line is no option, did you mean threshold?"),
        (["--evaluator#film", "x"], "evaluator::film: cxw_monai.inference.run.FilmSegmenter has no such argument"),
        (["--evaluator::structure", "x"], "did you mean structures?"),
        (["--input", "-films"], "--input has no value"),
        (["--zzzz", "1"], "zzzz (given on the command line): the bundle has no such setting. An entry of your own"),
    ],
)
def test_slips_of_the_command_line_are_refused(command, given, meant):
    assert meant in refused(command, [INFER], *given)


def test_a_flag_needs_no_value_and_what_fire_takes_for_its_negation_is_told(command):
    assert command([INFER], "--resume")["resume"] is True
    assert command([INFER], "--noresume")["resume"] is False
    assert "--normalise_pixels has no value" in refused(command, [TRAIN], "--normalise_pixels")
    assert "--noise_prob has no value" in refused(command, [SEGMENTATION / "train.json"], "--noise_prob")


def test_what_cannot_be_run_is_refused_before_anything_is(command):
    assert "'trainig' to run in the config files that were given, did you mean training?" in refused(
        command, [TRAIN], run_id="trainig"
    )
    assert "configs/evaluate.json has it" in refused(command, [TRAIN], run_id="evaluating")


def test_a_setting_of_another_run_is_told(command, caplog):
    command([SEGMENTATION / "train.json"], "--threshold", "0.9", "--lr", "1e-3")
    assert [record.message for record in caplog.records if "no effect" in record.message] == [
        "--threshold has no effect on this run: nothing in its config files refers to it."
    ]


def test_own_files_are_held_to_the_same_names_but_may_add_what_is_referred_to(command, tmp_path):
    wrong, own, macro = (tmp_path / name for name in ("wrong.yaml", "own.yaml", "macro.yaml"))
    wrong.write_text("objectves: [local]\n")
    said = refused(command, [TRAIN, wrong])
    assert said.startswith(f"objectves (given in {wrong}): ") and "did you mean objectives?" in said
    own.write_text("my_rate: 1.0e-4\nlr: $@my_rate * 2\n")
    assert command([TRAIN, own]).get_parsed_content("lr") == pytest.approx(2e-4)
    macro.write_text("my_range: [0.5, 1.0]\ncrop_scale: '%my_range'\n")
    assert command([TRAIN, macro])["crop_scale"] == [0.5, 1.0]
    own.write_text("my_rate: 1.0e-4\n")
    assert "must be referred to by another one" in refused(command, [TRAIN, own])
    own.write_text("+train: {dataloadr: 1}\n")
    assert "train::dataloadr" in refused(command, [TRAIN, own])
    own.write_text("train#dataloader#bach_size: 3\n")
    assert (
        "train::dataloader::bach_size: torch.utils.data.DataLoader has no such argument, did you mean batch"
        in refused(command, [TRAIN, own])
    )
    own.write_text("train#dataloader#prefetch_factor: 3\n")
    assert command([TRAIN, own])["train::dataloader::prefetch_factor"] == 3


def test_an_argument_file_is_held_to_the_same_names(command, tmp_path):
    arguments = tmp_path / "arguments.yaml"
    arguments.write_text("epocs: 3\n")
    assert f"epocs (given in {arguments})" in refused(command, [TRAIN], "--args_file", str(arguments))
    arguments.write_text("epochs: 3e0\ndataset_dir: 2024_01_02\n")
    parser = command([TRAIN], "--args_file", str(arguments))
    assert (parser["epochs"], parser["dataset_dir"]) == (3, "2024_01_02")


def test_what_monai_itself_is_given_stays_allowed(command):
    command(
        [TRAIN], "--tracking_uri", "x", "--experiment_name", "y", "--save_execute_config", "False", "--run_name", "z"
    )


TEXTS = ["20240102", "2024_01_02", "2024-01-02", "007", "1e5", "None", "True", "no", "[x]", "a,b", "{a: b}", "a b",
         "1:30", "film #1", "a#b", "0x1F", "nan", "é", "'"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_path_stays_the_text_that_was_given(command, tmp_path, text):
    assert command([INFER], "--input", text)["input"] == text
    assert command([INFER], f"--input={text}").get_parsed_content("input") == text
    assert command([TRAIN], "--output_dir", text).get_parsed_content("output_dir") == text
    written = text if text not in ("[x]", "{a: b}", "film #1", "'") else f'"{text}"'  # quotes that YAML itself needs
    for file, content in (("own.yaml", f"dataset_dir: {written}\n"), ("own.json", json.dumps({"dataset_dir": text}))):
        (tmp_path / file).write_text(content, encoding="utf-8")
        assert command([TRAIN, tmp_path / file]).get_parsed_content("dataset_dir") == text, file


def test_a_path_in_fires_own_quotes_an_object_and_null(command):
    assert program([INFER], input=Path("/films"))["input"] == "/films"
    assert "input must be a text or path" in refused(program, [INFER], input=20240102)
    assert "output must be a text or path" in refused(program, [INFER], output=None)
    assert command([INFER], "--input", "'007'")["input"] == "007"
    assert command([INFER], "--input", "null")["input"] is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "5e-4", 5e-4),
        ("lr", "'5e-4'", 5e-4),
        ("lr", "+.5E-3", 5e-4),
        ("lr", "0", 0.0),
        ("epochs", "'5'", 5),
        ("epochs", "010", 10),
        ("epochs", "1e3", 1000),
        ("warmup_epochs", "1e-1", 0.1),
        ("pixel_weight", "null", None),
        ("save_minutes", "None", None),
        ("clip_norm", "~", None),
        ("tf32", "yes", True),
        ("tf32", "1", True),
        ("resume", "no", False),
        ("tf32", "'False'", False),
        ("unified", "OFF", False),
        ("crop_scale", "[3e-1, '1']", [0.3, 1]),
        ("image_size", "[160, '192']", [160, 192]),
        ("image_size", "'160'", 160),
        ("objectives", "local", ["local"]),
        ("objectives", "'local, domain'", ["local", "domain"]),
        ("resume", "'true'", True),
        ("amp", "None", "none"),
        ("voi_item", "'1'", 1),
        ("voi_item", "lung", "lung"),
        ("window", "[4e2, '-1']", [400, -1]),
        ("device", "cpu", torch.device("cpu")),
    ],
)
def test_values_in_another_dress_are_what_they_mean(command, tmp_path, name, text, value):
    (tmp_path / "own.yaml").write_text(f"{name}: {text}\n")
    found = command([TRAIN, tmp_path / "own.yaml"]).get_parsed_content(name)
    assert found == value and type(found) is type(value)
    if not text.startswith("["):
        found = command([TRAIN], f"--{name}", text)[name]
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lr", "fast", "lr must be a valid number, unable to parse string as a number, got 'fast' (given in "),
        ("lr", ".nan", "lr must be a valid number"),
        ("lr", "-1", "lr must be greater than or equal to 0, got '-1' (given in "),
        ("lr", "1,5", "lr must be a valid number, unable to parse string as a number, got '1,5'"),
        ("lr", "true", "lr must be a valid number"),
        ("lr", "nan", "lr must be a finite number, got 'nan'"),
        (
            "clip_norm",
            ".inf",
            "clip_norm must be a valid number, unable to parse string as a number, or null, got '.inf'",
        ),
        ("epochs", "2.5", "epochs must be a valid integer, got a number with a fractional part, got '2.5'"),
        ("epochs", "0", "epochs must be greater than or equal to 1, got '0'"),
        ("epochs", "12:30", "It is: passes over the films, 1 or more."),
        ("epochs", "null", "epochs must be a valid integer, unable to parse string as an integer, got 'null'"),
        ("val_fraction", "1", "val_fraction must be less than 1, got '1'"),
        ("tf32", "2", "tf32 must be a valid boolean, unable to interpret input, got '2'"),
        ("crop_scale", "0.5", "crop_scale must be a valid list, got '0.5'"),
        ("crop_scale", "[0.5, 1.0, 2.0]", "crop_scale must have at most 2 items after validation, not 3"),
        ("crop_scale", "[0.5, .nan]", "crop_scale[1] must be a "),
        ("on_error", "stop", "on_error must be 'raise' or 'skip', got 'stop'"),
        ("amp", "fp16", "amp must be 'auto', 'bfloat16' or 'none'"),
        ("objectives", "[local, local]", "objectives must be a list of names, each once"),
        ("objectives", "[]", "objectives must be a list of names"),
        ("device", "gpu", "device must be a device of torch, such as cpu or cuda:0, got 'gpu'"),
    ],
)
def test_an_error_names_setting_value_and_what_is_expected(command, tmp_path, name, value, said):
    (tmp_path / "own.yaml").write_text(f"{name}: {value}\n")
    assert said in refused(command, [TRAIN, tmp_path / "own.yaml"])
    assert re.search(rf"{name}(\[1\])? must", refused(command, [TRAIN], f"--{name}={value}"))


def test_a_path_cannot_stand_for_a_component(command):
    """`--dataset /films` was meant as `--dataset_dir`; a component of one's own is one."""
    said = refused(command, [PRETRAINING / "inference.json"], "--dataset", "/films")
    assert "dataset (given on the command line) is a component of the program" in said
    assert "did you mean dataset_dir?" in said
    program(
        [PRETRAINING / "inference.json"],
        dataset={"_target_": "monai.data.Dataset", "data": [1]},
        dataset_dir="x",
        ckpt="y",
    )


def test_expressions_are_left_to_monai():
    parser = program(
        [TRAIN], lr="$1.0e-4 * 3", image_size="@cache_size", cache_dir="$@output_dir + '/c'", output_dir="x"
    )
    assert parser.get_parsed_content("lr") == pytest.approx(3e-4)
    assert parser.get_parsed_content("image_size") == 512 and parser.get_parsed_content("cache_dir") == "x/c"


NO_SETTINGS = ("_desc_", "imports", "extra_augmentation", "handlers", "initialize", "run", "finalize")
CLASSES = {
    PRETRAINING / "train.json": PretrainingSettings,
    PRETRAINING / "evaluate.json": EvaluationSettings,
    PRETRAINING / "inference.json": EmbeddingSettings,
    SEGMENTATION / "train.json": FineTuningSettings,
    SEGMENTATION / "evaluate.json": ScoringSettings,
    INFER: InferenceSettings,
    CLASSIFICATION / "train.json": ClassificationSettings,
    CLASSIFICATION / "evaluate.json": ClassificationScoringSettings,
    CLASSIFICATION / "inference.json": ClassifySettings,
}


@pytest.mark.parametrize("file", CLASSES, ids=lambda file: f"{file.parent.parent.name}_{file.stem}")
def test_plain_entries_of_a_config_are_settings_with_the_same_default(file):
    kind, content = CLASSES[file], json.loads(file.read_text())
    assert content["settings"]["_target_"] == f"{kind.__module__}.{kind.__name__}.of_config"
    for name, value in content.items():
        plain = not isinstance(value, dict) and not str(value).startswith(("$", "@", "%"))
        if plain and name not in NO_SETTINGS and "#" not in name:
            assert getattr(kind(), name) == value, name


@pytest.mark.parametrize("kind", CLASSES.values(), ids=lambda kind: kind.__name__)
def test_every_setting_is_described_and_its_default_is_one(kind):
    for name, field in kind.model_fields.items():
        assert field.description and field.json_schema_extra["resume"] in ("fixed", "logged", "free"), name
    defaults = kind().model_dump()
    assert kind(**defaults).model_dump() == defaults


@pytest.mark.parametrize("folder", [PRETRAINING, SEGMENTATION, CLASSIFICATION], ids=lambda folder: folder.parent.name)
def test_presets_set_what_there_is(folder):
    kind, base = CLASSES[folder / "train.json"], json.loads((folder / "train.json").read_text())
    for preset in folder.glob("presets/**/*.yaml"):
        content = yaml.safe_load(preset.read_text())
        names = {name.removeprefix("+") for name in content}
        assert names <= base.keys() | kind.model_fields.keys(), preset
        kind(**{name: value for name, value in content.items() if name in kind.model_fields})


def test_how_films_are_read_is_the_same_setting_in_every_command():
    given = {"voi": "none", "voi_item": 2, "window": [3000, 201], "max_pixels": 123}
    for kind in CLASSES.values():
        assert kind(**given).reader() == {**given, "percentiles": None}, kind


def test_settings_need_no_workflow():
    parser = ConfigParser()
    parser.read_config(str(TRAIN))
    parser.update({"network_size": "tiny", "image_size": "96", "predictor_dim": "24", "predictor_depth": 1})
    network = parser.get_parsed_content("network_def")
    assert network.encoder.grid == (6, 6) and network.predictor.mask_token.shape[-1] == 24
    assert parser.get_parsed_content("predictor_depth") == 1 and parser.get_parsed_content("clip_norm") == 1.0
    parser["lr"] = "fast"
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("optimizer")
    assert "lr must be a valid number" in reason(caught.value)


def test_a_setting_cannot_be_made_of_all_settings():
    assert "@settings" in refused(program, [TRAIN], lr="$@settings.lr_end * 2")


def test_the_command_line_is_split_as_fire_splits_it():
    line = typed(["run", "training", "--lr", "-1", "--a-b=c=d", "-x", "--c#d", "'1'", "more", "--flag", "--", "--help"])
    assert line.values == {"lr": "-1", "a_b": "c=d", "c::d": "1"} and line.bare == ["x", "flag"]
    assert line.positional == ["training", "more"]
