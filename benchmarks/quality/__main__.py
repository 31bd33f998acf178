"""``python -m benchmarks.quality``: calibration of the quality checks."""

import sys

from benchmarks.quality.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
