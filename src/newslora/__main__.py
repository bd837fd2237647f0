"""`python -m newslora`."""

import sys

from newslora.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
