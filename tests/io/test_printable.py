"""Names in errors and logs: one line that shows what is there."""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path

import pytest

from cxw_monai.io import RadiographError
from cxw_monai.io.files.printable import escape_log_records, printable, printable_lines
from cxw_monai.training.errors import install_error_hook
from cxw_monai.weights.encoder import CheckpointError

EVIL = "/d/\x1b[2Jx\r\nerror: none\u202egnp\x07\udcff.png"
SHOWN = "/d/\\x1b[2Jx\\r\\nerror: none\\u202egnp\\x07\\udcff.png"


@pytest.mark.parametrize("given", [EVIL, Path(EVIL), EVIL.encode("utf-8", "surrogateescape"), ValueError(EVIL)])
def test_what_could_move_a_cursor_is_escaped(given):
    assert printable(given) == SHOWN
    assert printable(SHOWN) == SHOWN  # once is enough


def test_ordinary_names_stay():
    for name in ("C:\\films\\späte Aufnahme, 胸部.png", "a'b\"c", ""):
        assert printable(name) == name
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


@pytest.mark.parametrize("kind", [RadiographError, CheckpointError])
def test_errors_are_one_line_and_keep_the_path(kind):
    error = kind(EVIL, "no film", "leave it out")
    assert str(error) == f"{SHOWN}: no film; leave it out" and str(error.path) == EVIL


def test_an_error_comes_whole_out_of_another_process():
    error = pickle.loads(pickle.dumps(RadiographError(EVIL, "no film", "leave it out")))
    assert str(error).startswith(SHOWN) and error.path == EVIL


@pytest.mark.parametrize(
    "arguments",
    [(EVIL,), (Path(EVIL),), (ValueError(EVIL),), ({"path": EVIL},)],
    ids=["text", "path", "error", "named"],
)
def test_log_lines_of_the_package_are_escaped(caplog, arguments):
    text = "left out: %(path)s" if isinstance(arguments[0], dict) else "left out: %s"
    logging.getLogger("cxw_monai.somewhere").warning(text, *arguments)
    assert ascii(caplog.records[-1].getMessage()) == ascii(f"left out: {SHOWN}")
    logging.getLogger("another.package").warning("%s of %d", "a\x07b", 3)
    assert caplog.records[-1].getMessage() == "a\x07b of 3"


def test_the_log_is_escaped_once():
    before = logging.getLogRecordFactory()
    escape_log_records()
    assert logging.getLogRecordFactory() is before


@pytest.mark.parametrize(
    "error", [RadiographError(EVIL, "no film", "leave it out"), KeyError(EVIL), OSError(2, "x", EVIL)]
)
def test_an_error_that_ends_a_bundle_shows_no_raw_name(error, monkeypatch, capsys):
    monkeypatch.setattr("cxw_monai.training.errors.runs_bundle_command", lambda: True)
    monkeypatch.setattr("cxw_monai.training.errors.holds_output", lambda: True)  # as of a run that had begun: no exit
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    install_error_hook()
    sys.excepthook(type(error), error, None)
    said = capsys.readouterr().err
    assert all(line.isprintable() for line in said.splitlines())
    assert "x1b[2J" in said.splitlines()[-1] and said.splitlines()[-1].startswith("error: ")
