"""Parity with the reference network: its golden file, files made by a plain re-implementation, and disagreements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.parity.__main__ import main
from benchmarks.parity.golden import ParityLine, check_parity
from tests.helpers.forks import run_python

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "check_parity.py"


def rewrite(path: Path, golden: Path, change: dict[str, np.ndarray]) -> Path:
    """A copy of a golden pair with some arrays changed."""
    with np.load(golden) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, **change})
    path.with_suffix(".json").write_text(golden.with_suffix(".json").read_text())
    return path


def edit_json(golden: Path, edit: dict[str, Any]) -> None:
    """Change values of the json beside a golden npz, named by dotted path."""
    described = json.loads(golden.with_suffix(".json").read_text())
    for dotted, value in edit.items():
        *parents, last = dotted.split("/")
        place = described
        for key in parents:
            place = place[key]
        place[last] = value
    golden.with_suffix(".json").write_text(json.dumps(described))


@pytest.fixture
def command(capsys):
    """Runs `python -m benchmarks.parity` in this process: exit code, lines, error."""

    def run(golden: Path, *options: str) -> tuple[int, list[str], str]:
        try:
            code = main(["--golden", str(golden), *options])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return run


def keys_of(golden: Path) -> set[str]:
    with np.load(golden) as file:
        outputs = {name for name in file.files if name.startswith("out.")}
    return outputs | {f"grad_norm.{name}" for name in json.loads(golden.with_suffix(".json").read_text())["grad_norm"]}


# --- agreement


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_the_references_golden_file(shared_golden, dtype, tolerance):
    golden = shared_golden / "chexworld_tiny.npz"
    lines = check_parity(golden, dtype)
    assert {line.name for line in lines} == keys_of(golden)
    assert all(line.passed for line in lines), "\n".join(str(line) for line in lines if not line.passed)
    assert {line.tolerance for line in lines if line.name.startswith("out.")} == {tolerance}


def test_the_reimplementation_agrees_with_the_golden_file(shared_golden, reference_outputs):
    golden = shared_golden / "chexworld_tiny.npz"
    cfg = json.loads(golden.with_suffix(".json").read_text())["cfg"]
    with np.load(golden) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    state = {name[3:]: value for name, value in arrays.items() if name.startswith("sd.")}
    batch = {name[3:]: value for name, value in arrays.items() if name.startswith("in.")}
    for name, value in reference_outputs(state, cfg, batch, torch.float32).items():
        assert (value - arrays[f"out.{name}"]).abs().max() < (1e-7 if "loss" in name else 1e-9), name


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"unify_embed": True},
        {"img_size": 40, "patch_size": 8},
        {"img_size": 48, "patch_size": 16, "depth": 3, "predictor_depth": 1},
        {"embed_dim": 32, "num_heads": 2, "predictor_embed_dim": 24, "policy_dim": 4},
        {"args": {"iwm_disable": True}},
        {"args": {"rel_pos_disable": True}},
        {"args": {"rel_pos_disable": True, "iwm_disable": True}, "withheld": torch.float64},
        {"args": {"rel_pos_disable": True}, "withheld": torch.float64, "unify_embed": True},
        {"args": {"extra_mean": False}},
        {"args": {"extra_loss_weight": 0.5}},
        {"args": {"extra_loss_weight": 0.5, "extra_mean": False}},
        {"args": {"extra_loss_weight": 0.0}},
        {"args": {"reverse_pred": True}},
        {"args": {"target_last_k": 2}, "depth": 3},
        {"args": {"target_last_k": 2}},
        {"args": {"loss_type": "smooth_l1"}},
    ],
    ids=str,
)
def test_files_of_other_sizes_and_flags(write_golden, tmp_path, case):
    golden = write_golden(tmp_path / "other.npz", **case)
    lines = check_parity(golden)
    assert {line.name for line in lines} == keys_of(golden)
    assert all(line.passed for line in lines), "\n".join(str(line) for line in lines if not line.passed)


def test_a_made_file_in_float32(made):
    assert all(line.passed for line in check_parity(made, torch.float32))


# --- disagreement


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_changed_weight_fails(command, made, tmp_path, dtype):
    with np.load(made) as file:
        weight = file["sd.encoder.blocks.1.mlp.fc2.weight"].copy()
    weight[3, 5] += 0.05
    changed = rewrite(tmp_path / "changed.npz", made, {"sd.encoder.blocks.1.mlp.fc2.weight": weight})
    code, lines, _ = command(changed, "--dtype", dtype)
    assert code == 1
    failed = {line.split()[1] for line in lines if line.startswith("FAIL")}
    assert {"out.enc_full_image1", "out.enc_ctx_image_aug1", "out.z11"} <= failed
    assert "out.target_image1" not in failed  # the target encoder was left alone
    assert command(made, "--dtype", dtype)[0] == 0


@pytest.mark.parametrize("name", ["out.z21", "out.target_image1", "out.loss_extra", "in.mask_perm", "in.rel_pos_12"])
def test_a_change_of_any_kind_is_noticed(made, tmp_path, name):
    with np.load(made) as file:
        value = file[name].copy()
    value = value[::-1].copy() if name == "in.mask_perm" else value + 1e-6
    lines = check_parity(rewrite(tmp_path / "changed.npz", made, {name: value}))
    assert any(not line.passed for line in lines)


def test_a_change_of_one_gradient_norm_is_noticed(command, made, tmp_path):
    golden = rewrite(tmp_path / "changed.npz", made, {})
    norm = json.loads(made.with_suffix(".json").read_text())["grad_norm"]["predictor.mask_token"]
    edit_json(golden, {"grad_norm/predictor.mask_token": norm * (1 + 1e-5)})
    code, lines, _ = command(golden)
    assert code == 1
    assert [line.split()[1] for line in lines if line.startswith("FAIL")] == ["grad_norm.predictor.mask_token"]


def test_a_value_that_is_no_number_fails(made, tmp_path):
    lines = check_parity(rewrite(tmp_path / "nan.npz", made, {"out.loss": np.array([np.nan])}))
    assert [line.name for line in lines if not line.passed] == ["out.loss"]


@pytest.mark.parametrize("flag", ["iwm_disable", "rel_pos_disable", "reverse_pred"])
def test_every_flag_matters(made, tmp_path, flag):
    golden = rewrite(tmp_path / "flag.npz", made, {})
    edit_json(golden, {f"cfg/args/{flag}": True})
    assert any(not line.passed for line in check_parity(golden))


@pytest.mark.parametrize(
    "edit, message",
    [
        ({"cfg/unify_embed": True}, "The json says unify_embed=True, the table is column_first"),
        ({"cfg/depth": 3}, "The json states .*depth=3.* the tensors say .*depth=2"),
        ({"cfg/patch_size": 16}, "The json states"),
        ({"cfg/predictor_embed_dim": 24}, "The json states"),
        ({"cfg/num_heads": 5}, "num_heads 5"),
        ({"cfg/args/loss_type": "unigrad"}, r"loss_type must be one of \['l2', 'smooth_l1'\], got 'unigrad'"),
        ({"cfg/args/target_norm_type": "bn"}, "target_norm_type must be 'avg_ln', got 'bn'"),
        ({"cfg/args/target_last_k": 0}, "target_layers must be at least 1"),
        ({"grad_norm/encoder.cls_token": 1.0}, r"No counterpart in our network for encoder\.cls_token"),
    ],
    ids=str,
)
def test_a_json_that_disagrees_is_an_error(command, made, tmp_path, edit, message):
    golden = rewrite(tmp_path / "edited.npz", made, {})
    edit_json(golden, edit)
    with pytest.raises(ValueError, match=message):
        check_parity(golden)
    code, lines, error = command(golden)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize("lacking", ["in.mask_perm", "sd.predictor.mask_token", "sd.encoder.norm.bias", "cfg"])
def test_a_file_that_lacks_something_is_an_error(command, made, tmp_path, lacking):
    golden = tmp_path / "lacking.npz"
    with np.load(made) as file:
        np.savez(golden, **{name: file[name] for name in file.files if name != lacking})
    described = json.loads(made.with_suffix(".json").read_text())
    described.pop(lacking, None)
    golden.with_suffix(".json").write_text(json.dumps(described))
    code, _, error = command(golden)
    assert code == 2 and lacking.removeprefix("sd.") in error and error.count("\n") == 1


def test_an_unknown_output_is_an_error(made, tmp_path):
    golden = rewrite(tmp_path / "more.npz", made, {"out.z99": np.zeros(1)})
    with pytest.raises(ValueError, match=r"No counterpart in our network for out\.z99"):
        check_parity(golden)


def test_an_unknown_flag_is_told(made, tmp_path, caplog):
    golden = rewrite(tmp_path / "flag.npz", made, {})
    assert all(line.passed for line in check_parity(golden)) and not caplog.records
    edit_json(golden, {"cfg/args/overlap_mode": 3})
    check_parity(golden)
    assert "overlap_mode" in caplog.text


@pytest.mark.parametrize(
    "damage", ["no npz", "no json", "garbage npz", "empty npz", "pickled npz", "cut npz", "garbage json"]
)
def test_unreadable_files_are_errors(command, made, tmp_path, damage):
    golden = rewrite(tmp_path / "damaged.npz", made, {})
    if damage == "no npz":
        golden.unlink()
    elif damage == "no json":
        golden.with_suffix(".json").unlink()
    elif damage == "garbage json":
        golden.with_suffix(".json").write_text("{")
    elif damage == "pickled npz":
        np.savez(golden, sd=np.array([{"an": "object"}], dtype=object))
    else:
        content = {"garbage npz": b"no archive", "empty npz": b"", "cut npz": golden.read_bytes()[:5000]}[damage]
        golden.write_bytes(content)
    code, lines, error = command(golden)
    named = golden.with_suffix(".json") if "json" in damage else golden
    assert (code, lines) == (2, [])
    assert error.startswith(f"error: {named}: ") and error.count("\n") == 1


# --- the command


def test_the_command_prints_one_line_per_key(made):
    done = run_python([SCRIPT, "--golden", made])
    assert done.returncode == 0, done.stderr
    *lines, summary = done.stdout.splitlines()
    assert {line.split()[1] for line in lines} == keys_of(made) and len(lines) == len(keys_of(made))
    assert all(line.startswith("ok ") for line in lines)
    assert summary == f"{len(lines)} of {len(lines)} within tolerance (float64)"


@pytest.mark.parametrize("options", [("--speed", "fast"), ("--dtype", "float16")])
def test_an_unknown_option_of_the_command_is_refused(command, made, options):
    code, _, error = command(made, *options)
    assert code == 2 and options[-1] in error


def test_a_line_tells_its_verdict():
    passed, failed = ParityLine("out.loss", 1e-10, 1e-9), ParityLine("out.loss", 2e-9, 1e-9)
    assert passed.passed and str(passed).startswith("ok ") and "1.000e-10 (tolerance 1e-09)" in str(passed)
    assert not failed.passed and str(failed).startswith("FAIL out.loss")
    assert not ParityLine("out.loss", float("nan"), 1e-9).passed
