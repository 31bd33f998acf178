"""Processes that begin with everything imported, for tests that need a process of its own but not its start.

`python -m tests.helpers.forks` is a server, one per process of tests: it has imported PyTorch, MONAI and the package,
which takes seconds, and forks. It reads orders, one JSON object a line: `{"start": "module:function", "argument": ...}`
answers the new process's id, `{"wait": id, "seconds": ...}` its exit status, negative for a signal, null while it runs.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]


class Fork:
    """A process of the server's, in a session of its own."""

    def __init__(self, function: str, argument: Any) -> None:
        self.pid: int = _ask({"start": function, "argument": argument})
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self.wait(0)

    def wait(self, seconds: float = 600) -> int | None:
        """The exit status, negative for a signal; None where it still runs after `seconds`."""
        if self._status is None:
            self._status = _ask({"wait": self.pid, "seconds": seconds})
        return self._status


def start_python(
    arguments: Sequence[object], output: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Fork:
    """Begin what `python ARGUMENTS` does (`-m MODULE ...`, `-c CODE ...`, `FILE ...`).

    Its streams go to the files `stdout` and `stderr` in `output`.
    """
    order = {"arguments": [str(word) for word in arguments], "output": str(output)}
    return Fork("tests.helpers.forks:_python", {**order, "cwd": str(cwd or Path.cwd()), "env": {**(env or os.environ)}})


def run_python(
    arguments: Sequence[object], *, processes: int = 1, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `python ARGUMENTS`, as text; of several processes as torchrun starts them, joined.

    Of several, the status is the first that is not 0.
    """
    env = {**(env or os.environ)}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, str(rank)) for rank in range(processes)]
        forks = []
        for rank, folder in enumerate(folders):
            folder.mkdir()
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            forks.append(start_python(arguments, folder, cwd, {**env, **own}))
        statuses = [fork.wait() for fork in forks]
        for fork in forks:
            if fork.poll() is None:
                os.killpg(fork.pid, signal.SIGKILL)
        said = ["".join((folder / name).read_text() for folder in folders) for name in ("stdout", "stderr")]
    status = next((one for one in statuses if one != 0), 0)
    assert status is not None, f"{arguments} did not end: {said[1][-3000:]}"
    return subprocess.CompletedProcess(list(arguments), status, *said)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The server of this process. It ends when its input does."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    return server


def _ask(order: dict[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def _python(order: dict[str, Any]) -> None:
    """What the interpreter does with its arguments, in this process."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(order["output"], name), os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    first, *rest = order["arguments"]
    __main__ = sys.modules["__main__"]
    sys.path[0] = order["cwd"] if first in ("-m", "-c") else str(Path(first).parent)
    if first == "-m":
        sys.argv = rest
        runpy._run_module_as_main(rest[0])  # unlike run_module, it leaves `__main__` in place for an error hook
    else:
        sys.argv, __main__.__spec__ = (["-c", *rest[1:]] if first == "-c" else [first, *rest]), None
        source = rest[0] if first == "-c" else Path(first).read_text()
        exec(compile(source, first, "exec"), {"__name__": "__main__", "__file__": first})


def _wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def _serve() -> None:
    for module in ("torch._dynamo", "monai.bundle.__main__", "tests.helpers.tiny_runs", "cxw_monai.inference.api",
                   "cxw_monai.inference.outputs", "cxw_monai.tasks.pretraining.components",
                   "cxw_monai.tasks.segmentation.components", "cxw_monai.tasks.classification.components",
                   "torch.utils.tensorboard", "matplotlib.pyplot"):  # fmt: skip
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or each process, when it ends, goes through and so copies all that is imported: twice its work
    print("ready", flush=True)
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "wait" in order:
            answer = _wait(order["wait"], order["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                module, _, function = order["start"].partition(":")
                return getattr(importlib.import_module(module), function)(order["argument"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
