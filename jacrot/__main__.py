"""``python -m jacrot``: the command line."""

import sys

from jacrot.cli import main

if __name__ == "__main__":
    sys.exit(main())
