"""`cxw-monai import-weights`: what it prints, what it writes, how it fails."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import pytest
import torch

from cxw_monai.weights.files import read_content
from cxw_monai.weights.official import WorldModelGeometry, build_world_model

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "import_checkpoint.py"
GEOMETRY = WorldModelGeometry(16, 8, 3, 24, 1, 3, 12, 1, 3, context_order="column_first")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    state = build_world_model(GEOMETRY).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith(("image_mean", "image_std"))}
    path = tmp_path / "official.tar"
    torch.save({"model": state, "epoch": 299, "args": argparse.Namespace(lr=0.1, unify_embed=False)}, path)
    return path


@pytest.fixture
def command(run_verb):
    """Exit status, lines of the output, and standard error of `cxw-monai import-weights`."""

    def run(*arguments: object) -> tuple[int, list[str], str]:
        code, out, error = run_verb("import-weights", *arguments)
        return code, out.splitlines(), error

    return run


def test_prints_what_it_found_and_writes_both_files(command, official, tmp_path):
    out = tmp_path / "new" / "out"
    code, lines, error = command(official, out, "--num-heads", 3)
    assert (code, error) == (0, "")
    assert [line.split()[0] for line in lines] == [
        *("image", "encoder", "predictor", "positions", "contents", "epoch", "arguments", "written"),
    ]
    text = "\n".join(lines)
    tensors = read_content(official)["model"]
    scalars = sum(value.numel() for value in tensors.values())
    for fact in (
        "16 px, patches of 8 px, 3 channel(s)",
        "24-d, 1 blocks, 3 heads",
        "12-d, 1 blocks, 3 heads, conditioning feat, actions of 5",
        "legacy (axis-swapped)",
        f"{len(tensors)} tensors, {scalars:,} numbers",
        "299",
        "lr, unify_embed",
        str(out / "model.safetensors"),
    ):
        assert fact in text
    assert read_content(out / "model.pt")["encoder.patch_embed.proj.weight"].shape == (24, 3, 8, 8)
    assert (out / "model.safetensors").is_file()


def test_one_channel(command, official, tmp_path):
    code, lines, _ = command(official, tmp_path / "out", "--one-channel", "--num-heads", 3)
    assert code == 0 and "1 channel(s)" in lines[0]
    assert read_content(tmp_path / "out" / "model.pt")["target_encoder.patch_embed.proj.weight"].shape == (24, 1, 8, 8)


@pytest.mark.parametrize(
    "content, reason",
    [(None, "no such file"), (b"", "not a readable checkpoint"), (b"<html>", "not a readable checkpoint")],
)
def test_an_unusable_file_is_one_line_and_exit_2(command, tmp_path, content, reason):
    path = tmp_path / "official.tar"
    if content is not None:
        path.write_bytes(content)
    code, lines, error = command(path, tmp_path / "out")
    assert (code, lines) == (2, [])
    assert error.startswith(f"error: {path}: ") and reason in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unknown_heads_name_the_option(command, official, tmp_path):
    code, _, error = command(official, tmp_path / "out")
    assert code == 2 and "give num_heads" in error and error.count("\n") == 1


def test_a_file_in_the_place_of_the_folder(command, official, tmp_path):
    (tmp_path / "out").write_text("in the way")
    code, _, error = command(official, tmp_path / "out", "--num-heads", 3)
    assert code == 2 and error.startswith("error: ") and "out" in error


def test_under_its_old_name(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path / "absent.tar"), str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent.tar'}: no such file; check the path\n"
