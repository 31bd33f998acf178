"""``python -m cxw_monai``: the command ``cxw-monai``."""

import sys

from cxw_monai.cli import main

if __name__ == "__main__":
    sys.exit(main())
