"""``python -m cxw_monai.label``: the command ``cxw-monai label``."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main(["label", *sys.argv[1:]]))
