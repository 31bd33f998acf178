"""`cxw-monai search` as a script."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
