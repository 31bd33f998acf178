"""`python -m benchmarks.shortcut`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ stands beside scripts/, in no wheel
    runpy.run_module("benchmarks.shortcut", run_name="__main__", alter_sys=True)
