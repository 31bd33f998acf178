"""Freed memory is kept by the process, so that the next step does not ask the kernel for it again."""

import platform
import subprocess
import sys

import pytest

from cxw_monai.training.memory import keep_freed_memory

SCRIPT = """
import ctypes, importlib.util, resource, sys
spec = importlib.util.spec_from_file_location("memory", sys.argv[1])
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[2] == "keep":
    assert memory.keep_freed_memory()
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(20 * 2**20) for _ in range(5)]
    for block in blocks:
        ctypes.memset(block, 1, 20 * 2**20)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_used_again_without_page_faults():
    path = sys.modules[keep_freed_memory.__module__].__file__
    faults = {}
    for choice in ("keep", "default"):
        ran = subprocess.run([sys.executable, "-c", SCRIPT, path, choice], capture_output=True, text=True, check=True)
        faults[choice] = int(ran.stdout)
    # ten steps of 100 MiB, 25 600 pages of 4 KiB each
    assert faults["keep"] < 100 < 10_000 < faults["default"]


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
