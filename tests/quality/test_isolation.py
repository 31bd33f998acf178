"""A task that crashes, hangs or raises fails alone."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from cxw_monai.quality.isolation import Failed, run_isolated


def act(task: str) -> str:
    if task == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "exit":
        os._exit(3)
    elif task == "leave":
        os._exit(0)
    elif task == "late":
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif task == "hang":
        time.sleep(600)
    elif task == "raise":
        raise RuntimeError("Doe^Jane")
    return task.upper()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_rest_goes_on(workers):
    tasks = ["a", "crash", "b", "hang", "c", "raise", "exit", "d"]
    results = dict(run_isolated(act, tasks, workers, limit=5.0))
    assert [results[index] for index in (0, 2, 4, 7)] == ["A", "B", "C", "D"]
    assert results[1] == Failed("reading it crashed the process (signal 9)")
    assert results[6] == Failed("reading it crashed the process (exit status 3)")
    assert results[3] == Failed("not read within 5 s")
    assert results[5] == Failed("reading it failed unexpectedly (RuntimeError)")  # no text of the file


def test_a_process_that_just_leaves_is_told_at_once():
    results = dict(run_isolated(act, ["a", "leave", "b"], 1, limit=300))
    assert results == {0: "A", 1: Failed("reading it crashed the process (exit status 0)"), 2: "B"}


def test_a_process_that_is_killed_between_two_tasks_takes_none_with_it():
    results = {}
    for index, result in run_isolated(act, ["late", "b", "c", "d"], 1, limit=300):
        results[index] = result
        time.sleep(0.5 if index == 0 else 0)
    assert results == {0: "LATE", 1: "B", 2: "C", 3: "D"}


def test_every_task_once_and_no_process_left():
    seen = [index for index, _ in run_isolated(process_id, list(range(200)), 4, limit=300)]
    assert sorted(seen) == list(range(200))
    processes = {result for _, result in run_isolated(process_id, list(range(50)), 2, limit=300)}
    assert os.getpid() not in processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def process_id(_: int) -> int:
    return os.getpid()


def test_nothing_to_do():
    assert list(run_isolated(act, [], 2, limit=1)) == []
