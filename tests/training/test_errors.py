import pytest
import torch
from monai.bundle import ConfigParser

from cxw_monai.io import RadiographError
from cxw_monai.training import CosineSchedule, errors
from cxw_monai.training.errors import plain_message, root_cause
from tests.helpers.forks import run_python

AS_COMMAND = (
    "import importlib.machinery, __main__; "
    "__main__.__spec__ = importlib.machinery.ModuleSpec('monai.bundle.__main__', None); "
)


def chained():
    try:
        try:
            raise RadiographError("film.png", "truncated", "export it again")
        except RadiographError as error:
            raise RuntimeError("Failed to instantiate component") from error
    except RuntimeError as error:
        return error


def test_the_first_error_of_a_chain_is_the_cause():
    assert str(root_cause(chained())) == "film.png: truncated; export it again"
    assert str(root_cause(ValueError("alone"))) == "alone"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.json", b"{'training': [", "not readable JSON (Expecting property name"),
        ("latin.csv", "image,site\nfilm.png,K\xf6ln\n".encode("cp1252"), "line 2: not UTF-8 (byte 0xf6)"),
        ("semicolons.csv", b"image;site\nfilm.png;1\n", "line 1: semicolons between the cells"),
        ("cell.csv", b"image,label_x\nfilm.png,maybe\n", "line 2: column label_x: cannot read 'maybe'"),
        ("quotes.csv", b'image,site\n"film.png,1\n', "not a readable CSV (unexpected end of data)"),
    ],
)
def test_the_packages_own_message_is_shown_not_the_parsers_that_it_was_raised_from(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    items = {"_target_": "cxw_monai.data.manifest.load_items", "datalist": str(tmp_path / name)}
    parser = ConfigParser({"items": items, "first": "$len(@items)"})
    with pytest.raises(RuntimeError) as caught:  # MONAI's
        parser.get_parsed_content("first")
    message = plain_message(root_cause(caught.value))
    assert message.startswith(f"{tmp_path / name}") and said in message


def test_an_error_of_a_call_that_was_not_raised_on_purpose_is_no_message_for_users():
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        exec(compile("int('seven')", errors.__file__, "exec"))  # as a line of the package
    assert plain_message(caught.value) is None


def test_the_packages_own_error_in_a_loaders_worker_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="Caught ValueError") as caught:
        list(torch.utils.data.DataLoader(Refusing(), num_workers=1))
    assert plain_message(caught.value) == "total must be positive and warmup within it, got 0 and 0."


class Refusing(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return CosineSchedule(1.0, 0.0, total=0)


@pytest.mark.parametrize(
    ("raised", "traceback", "status"),
    [
        ("raise RadiographError('film.png', 'truncated', 'export it again')", False, 2),  # nothing was begun
        ("hold_output('run'); CosineSchedule(1.0, 0.0, total=0)", False, 1),
        ("int('seven')", True, 1),
    ],
)
def test_a_program_ends_with_one_clear_line(raised, traceback, status, tmp_path):
    program = (
        f"{AS_COMMAND}\nfrom cxw_monai.training import CosineSchedule, hold_output, install_error_hook\n"
        "from cxw_monai.io import RadiographError\n"
        f"install_error_hook()\ntry:\n    {raised}\n"
        "except ValueError as e:\n    raise RuntimeError('wrapped') from e"
    )
    done = run_python(["-c", program], cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert ("Traceback" in done.stderr) == traceback
    assert "wrapped" not in done.stderr.strip().splitlines()[-1]


def test_a_program_that_loads_a_bundle_keeps_its_own_hook():
    program = (
        "import sys; from cxw_monai.training import install_error_hook; "
        "from cxw_monai.inference.run import install_exit_hook; own = sys.excepthook; "
        "install_error_hook(); install_exit_hook(); assert sys.excepthook is own"
    )
    done = run_python(["-c", program])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", ["ConnectionResetError(104, 'Connection reset by peer')", "EOFError()"])
def test_a_worker_killed_while_it_hands_over_a_batch_is_told_like_any_other(error):
    """The loader then meets a closed connection before it looks whether its workers live."""
    found = {}
    for name, file in (("loader", torch.utils.data.dataloader.__file__), ("elsewhere", "client.py")):
        with pytest.raises((ConnectionError, EOFError)) as raised:
            exec(compile(f"raise {error}", file, "exec"))
        found[name] = plain_message(raised.value)
    assert found["loader"].startswith("DataLoader worker exited unexpectedly (")
    assert "killed, often for lack of memory. Lower num_workers" in found["loader"]
    assert found["elsewhere"] is None
