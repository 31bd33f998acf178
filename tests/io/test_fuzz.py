"""Thousands of damaged files: a valid radiograph or the package's own error, never anything else.

``CXW_FUZZ_COUNT`` sets how many (2,000), ``CXW_FUZZ_START`` the number of the first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cxw_monai.io import Radiograph, RadiographError, read_radiograph
from cxw_monai.io.pixel_map import PixelMap
from tests.helpers import damaged_files, dicom_files, fuzzing

COUNT, START = int(os.environ.get("CXW_FUZZ_COUNT", "2000")), int(os.environ.get("CXW_FUZZ_START", "0"))
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGPROF") or not hasattr(os, "fork"), reason="needs POSIX")


def _seeds(real=None):
    return damaged_files.make_seeds(dicom_files.write_dicom, dicom_files.lut_sequence, real)


def _real_folder():
    folder = Path(os.environ.get("CXW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "dicom" / "images"
    return folder if folder.is_dir() else None  # without them the generated files do


def test_every_seed_is_valid(tmp_path):
    for seed in _seeds(_real_folder()):
        path = tmp_path / seed.name
        path.write_bytes(seed.content)
        assert fuzzing._fault(read_radiograph(path)) == ""


def _failures(outcomes):
    return [str(outcome) for outcome in outcomes if outcome.result not in ("valid", "refused")]


@pytest.mark.slow
def test_damaged_files_are_valid_or_refused():
    numbers = range(START, START + COUNT)
    outcomes = list(fuzzing.run(partial(damaged_files.mutate, _seeds(_real_folder())), numbers, read_radiograph))
    kinds = Counter((outcome.kind, outcome.result) for outcome in outcomes)
    results = Counter(outcome.result for outcome in outcomes)
    print(*(f"{kind:12s} {result:12s} {count}" for (kind, result), count in sorted(kinds.items())), sep="\n")
    print(dict(results))
    assert _failures(outcomes) == []
    assert [outcome.number for outcome in outcomes] == list(numbers)
    assert min(results["valid"], results["refused"]) > COUNT // 10


def test_bombs_are_refused_before_they_take_the_memory():
    bombs = damaged_files.make_bombs()
    outcomes = list(fuzzing.run(bombs.__getitem__, range(len(bombs)), read_radiograph))
    assert _failures(outcomes) == [] and len(outcomes) == len(bombs)


def _faulty(path, *, fault):
    """A reader with one fault, in the files whose first byte is 1."""
    radiograph = Radiograph(np.tile(np.linspace(0, 1, 8, dtype=np.float32), (1, 8, 1)), {"spacing_mm": None})
    radiograph.meta["pixel_map"] = PixelMap.identity((8, 8))
    content = Path(path).read_bytes()
    if content[0] == 0:
        return radiograph
    if fault == "crash":
        ctypes.string_at(0)
    elif fault == "hang":
        while True:
            pass
    elif fault == "exception":
        raise KeyError("Rows")
    elif fault == "noise":
        for number in range(30):
            warnings.warn(f"odd value {number}", stacklevel=2)
    elif fault == "memory":
        np.ones(200_000_000)
    elif fault == "invalid":
        radiograph.array *= 2
    elif fault == "half picture":
        radiograph.array[:, 4:] = 0
    elif fault == "refused":
        raise RadiographError(path, "damaged", "copy it again")
    return radiograph


FAULTS = ("crash", "hang", "exception", "noise", "memory", "invalid", "half picture", "refused", "valid")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_reader_is_found_and_the_next_file_is_read(fault, monkeypatch):
    if fault == "memory" and sys.platform != "linux":
        pytest.skip("memory is measured on Linux")
    monkeypatch.setattr(fuzzing, "CPU_SECONDS", 2 if fault == "hang" else 1000)  # a slow machine is no fault
    monkeypatch.setattr(fuzzing, "WALL_SECONDS", 1000)

    def make(number):
        return damaged_files.Case(
            damaged_files.Seed("whole", b"\0"), "cut", b"\1" if number == 1 else b"\0", is_cut=True
        )

    outcomes = fuzzing.run(make, range(4), partial(_faulty, fault=fault))
    assert [outcome.result for outcome in outcomes] == ["valid", fault, "valid", "valid"]


def test_damage_is_the_same_every_time_and_of_every_kind():
    seeds = _seeds()
    cases = [damaged_files.mutate(seeds, number) for number in range(300)]
    again = _seeds()
    assert [case.content for case in cases] == [damaged_files.mutate(again, number).content for number in range(300)]
    assert {case.seed.name for case in cases} == {seed.name for seed in seeds}
    kinds = {"absent", "absurd", "cut", "descriptor", "duplicate", "ihdr", "lut", "nested", "rewritten", "syntax"}
    assert {case.kind for case in cases} >= kinds
    assert all(case.content != case.seed.content for case in cases if case.is_cut)
