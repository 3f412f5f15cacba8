"""`python -m fastvae`."""

import sys

from fastvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
