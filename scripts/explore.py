"""`cxw-monai explore`."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["explore", *sys.argv[1:]]))
