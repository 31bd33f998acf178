"""`cxw-monai compare-encoders`."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare-encoders", *sys.argv[1:]]))
