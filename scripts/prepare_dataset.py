"""`cxw-monai prepare` under its name of version 0.1, which goes in 0.3."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
