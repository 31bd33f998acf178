"""Very small runs in processes of their own, and what tests ask of them."""

from __future__ import annotations

import csv
import os
import signal
import time

import pytest
import torch

from tests.helpers import tiny_runs as tiny_runs_module
from tests.helpers.forks import Fork


class TinyRuns:
    """Starts runs in processes of their own, waits for them, and compares what they leave."""

    def __init__(self, films):
        self.films, self.make_films, self.forks = films, tiny_runs_module.make_films, {}

    def start(self, folder, **settings):
        """Begin a run, in as many processes as its `world` says; their ids."""
        world, logs = settings.get("world", 1), folder.parent
        common = {
            "films": str(settings.pop("films", self.films)),
            "folder": str(folder),
            "batch_size": 4,
            "log": str(logs / f"{folder.name}.log"),
            "store": str(logs / f"{folder.name}.store.{time.monotonic_ns()}"),
        }
        runs = [{**common, **settings, "rank": rank} for rank in range(world)]
        forks = [Fork("tests.helpers.tiny_runs:child", run) for run in runs]
        self.forks |= {fork.pid: fork for fork in forks}
        return [fork.pid for fork in forks]

    def wait(self, pids):
        """Exit status of each; negative for a signal."""
        statuses = [self.forks[pid].wait(300) for pid in pids]
        for pid, status in zip(pids, statuses, strict=True):
            if status is None:
                os.kill(pid, signal.SIGKILL)
        return statuses

    def finish(self, folder, **settings):
        """A run from its start to its end."""
        status = self.wait(self.start(folder, **settings))
        assert set(status) == {0}, self.log(folder)
        return folder

    def paused(self, folder, pids):
        """Wait until every process has paused; the files whose removal lets them go on."""
        marks = [folder / f"paused_{rank}" for rank in range(len(pids))]
        deadline = time.monotonic() + 300
        while not all(mark.exists() for mark in marks):
            assert time.monotonic() < deadline, self.log(folder)
            time.sleep(0.005)
        return marks

    def kill(self, pids, number=signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)

    @staticmethod
    def log(folder):
        return folder.with_name(f"{folder.name}.log").read_text()

    @staticmethod
    def last_line(folder):
        return TinyRuns.log(folder).strip().splitlines()[-1]


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    """Very small runs of two dozen films; one for all tests of a process."""
    films = tmp_path_factory.mktemp("tiny")
    tiny_runs_module.make_films(films)
    return TinyRuns(films)


@pytest.fixture(scope="session")
def whole(tiny_runs, tmp_path_factory):
    """Folder of an uninterrupted run of these settings, made once; without workers, saved at epochs' ends alone."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def run(**settings):
        settings = {
            name: value for name, value in settings.items() if name in ("kind", "accumulation", "world", "sharded")
        }
        key = str(sorted(settings.items()))
        if key not in made:
            made[key] = tiny_runs.finish(folder / str(len(made)), batch_size=4 // settings.get("world", 1), **settings)
        return made[key]

    return run


def differences(first, second, place=""):
    """Where two contents of checkpoints differ in a bit."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [place]
    if isinstance(first, dict):
        assert first.keys() == second.keys(), place
        return [d for key in first for d in differences(first[key], second[key], f"{place}/{key}")]
    if isinstance(first, list | tuple):
        assert len(first) == len(second), place
        pairs = enumerate(zip(first, second, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{place}/{i}")]
    return [] if first == second else [place]


@pytest.fixture(scope="session")
def assert_same_end():
    """Two whole runs left the same bits: weights, optimiser, generators, best epoch and record, save for the time."""

    def record(folder):
        with (folder / "metrics.csv").open() as file:
            return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]

    def check(first, second):
        for name in ("checkpoint_epoch=2.pt", "model.pt"):
            contents = [torch.load(folder / name, weights_only=True) for folder in (first, second)]
            assert [d for d in differences(*contents) if not d.endswith("images_per_second")] == [], name
        assert record(first) == record(second)

    return check
