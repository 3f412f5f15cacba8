"""python -m bench SUITE: runs a suite of measurements and prints the results; `all` runs every suite."""

import sys

from bench.suites import SUITES
from fastvae.errors import suggest


def main() -> int:
    """Dispatches to the suite that is named first."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in SUITES:
        return SUITES[name].main(arguments)
    if name == "all":
        from bench.all import runner

        return runner.main(arguments)
    names = [*SUITES, "all"]
    print(f"usage: python -m bench {{{','.join(names)}}} [--help]", file=sys.stderr)
    if name in ("-h", "--help"):
        return 0
    print(f"no suite {name!r}{suggest(name, names)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
