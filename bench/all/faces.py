"""Draws the embedded faces into the cache, for the stages that train on them: python -m bench.all.faces."""

import sys

from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.errors import FastvaeError


def main() -> int:
    """Returns the exit status."""
    try:
        open_images(EMBEDDED, 64)
    except FastvaeError as error:  # the stages that need them will say so, too
        print(f"the embedded faces: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
