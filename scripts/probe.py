"""`cxw-monai probe` under its name of version 0.1."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:]]))
