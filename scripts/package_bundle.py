"""`cxw-monai package` under its name of version 0.1."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["package", *sys.argv[1:]]))
