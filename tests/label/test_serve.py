"""The server's folder and command, without the server."""

import json
import stat

import pytest

from cxw_monai.cli import main
from cxw_monai.label.serve import classifier_files, lay_out, server_command, server_environment
from cxw_monai.weights.bundles import named_bundle
from cxw_monai.weights.files import CheckpointError
from tests.helpers.small_classifier import save_classifier


def test_the_folder_is_completed_and_a_trained_model_stays(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"first")
    app = tmp_path / "app"
    lay_out(app, tmp_path / "model.pt")
    mine = app / "model" / "chexworld_segmentation.pt"
    assert mine.read_bytes() == b"first"
    mine.write_bytes(b"trained")
    (app / "tmp" / "tmpleft123.png").write_bytes(b"of a killed server")
    lay_out(app, tmp_path / "model.pt")
    assert mine.read_bytes() == b"trained"
    assert list((app / "tmp").iterdir()) == []
    assert stat.S_IMODE((app / "tmp").stat().st_mode) == 0o700


def test_lines_that_quote_requests_are_not_logged(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"model")
    lay_out(tmp_path / "app", tmp_path / "model.pt")
    settings = json.loads((tmp_path / "app" / "logs" / "logging.json").read_text())
    assert {settings["loggers"][name]["level"] for name in ("monailabel", "pydicom", "uvicorn.access")} == {"WARNING"}


def test_the_server_answers_this_machine_only_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("CXW_LABEL_HOSTS", raising=False)
    assert server_environment(tmp_path, "127.0.0.1")["CXW_LABEL_HOSTS"] == "127.0.0.1,localhost"
    assert server_environment(tmp_path, "0.0.0.0")["CXW_LABEL_HOSTS"] == "*"
    monkeypatch.setenv("CXW_LABEL_HOSTS", "label.example.org")
    assert server_environment(tmp_path, "127.0.0.1")["CXW_LABEL_HOSTS"] == "label.example.org"
    command = server_command(tmp_path, "films", tmp_path, "127.0.0.1", 8123, "cpu", {})
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_classifiers_are_those_that_are_named_or_the_bundles(tmp_path):
    (tmp_path / "models").mkdir()
    assert classifier_files([], tmp_path) == {}
    own, other = (save_classifier(tmp_path / "models" / name) for name in ("model.pt", "view_position.pt"))
    name = "chexworld_classification"
    assert classifier_files([], tmp_path) == {name: own, f"{name}_view_position": other}
    assert classifier_files([other], tmp_path) == {f"{name}_view_position": other}
    with pytest.raises(ValueError, match="classifiers are served by their file's name"):
        classifier_files([own, own], tmp_path)
    (tmp_path / "model.pt").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        classifier_files([tmp_path / "model.pt"], tmp_path)


def test_a_missing_model_is_one_line(tmp_path, capsys):
    status = main(["label", str(tmp_path), "--app", str(tmp_path / "app"), "--model", str(tmp_path / "none.pt")])
    assert status == 2 and "none.pt: no such file" in capsys.readouterr().err


def test_without_studies_nothing_starts(capsys):
    assert main(["label"]) == 2
    assert "folder of the films" in capsys.readouterr().err


def test_a_model_that_is_none_is_one_line_before_anything_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.execve", lambda *arguments: pytest.fail("a server was started"))
    (tmp_path / "model.pt").write_bytes(b"no weights")
    own = ["--app", str(tmp_path / "app"), "--model", str(tmp_path / "model.pt")]
    assert main(["label", str(tmp_path), *own]) == 2
    assert "model.pt: not a readable checkpoint (neither a torch" in capsys.readouterr().err
    assert not (tmp_path / "app").exists()  # the file would stay there
    assert main(["label", str(tmp_path), "--bundle", "nothing", *own]) == 2
    assert "nothing: no such file, and no bundle of this name" in capsys.readouterr().err


def test_the_bundle_and_its_model_are_found_by_name(tmp_path, monkeypatch):
    started = []

    def execve(program: str, command: list[str], environment: dict[str, str]) -> None:
        started.append(command)
        raise SystemExit  # it never returns

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["label", str(tmp_path)])
    (command,) = started
    assert command[command.index("--app") + 1] == str(tmp_path / ".monailabel")
    bundle = named_bundle("chexworld_segmentation")
    assert command[command.index("bundle") + 1] == str(bundle)
    mine = tmp_path / ".monailabel" / "model" / "chexworld_segmentation.pt"
    assert mine.read_bytes() == (bundle / "models" / "model.pt").read_bytes()
