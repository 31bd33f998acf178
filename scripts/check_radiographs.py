"""`cxw-monai check` under its name of version 0.1, which goes in 0.3."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["check", *sys.argv[1:]]))
