"""python -m bench SUITE: runs a suite of measurements and prints what it found."""

import difflib
import importlib
import sys

# Each a module with `main(arguments) -> exit status`, imported only when asked for.
SUITES = {
    "kernels": "bench.kernels.bench_kernels",
    "step": "bench.step.bench_step",
    "loader": "bench.loader.bench_loader",
    "inference": "bench.inference.bench_inference",
    "accelerate": "bench.inference.bench_accelerate",
    "paper": "bench.paper.bench_paper",
    "soak": "bench.inference.bench_soak",
    "lossnet": "bench.kernels.bench_lossnet",
    "all": "bench.everything",
}


def main() -> int:
    """Dispatches to the suite that is named first."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in SUITES:
        return importlib.import_module(SUITES[name]).main(arguments)
    print(f"usage: python -m bench {{{','.join(SUITES)}}} [--help]", file=sys.stderr)
    if name in ("-h", "--help"):
        return 0
    near = difflib.get_close_matches(name, SUITES, n=1)
    print(f"no suite {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
