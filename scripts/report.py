"""`cxw-monai report`."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
