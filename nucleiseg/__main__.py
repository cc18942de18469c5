"""Run the command line: ``python -m nucleiseg``."""

import sys

from nucleiseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
