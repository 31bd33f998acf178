"""`python -m benchmarks.device`: whether a device computes what the CPU does, and how fast."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ stands beside scripts/, in no wheel
    runpy.run_module("benchmarks.device", run_name="__main__", alter_sys=True)
