"""`python -m revs_tars_plugin`, the same as `revs-tars`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
