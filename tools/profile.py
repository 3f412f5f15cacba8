#!/usr/bin/env python3
"""Where a training step's time goes: a trace of real steps, and a table by part beside what this machine allows.

python tools/profile.py [--recipe celeba64] [--steps 10] [--out profile/]
"""

import sys
from pathlib import Path

_TOOLS = Path(__file__).resolve().parent

if __name__ == "__main__":
    # Not this folder, where cProfile, and so torch, would find this file for the standard library's `profile`, but the
    # repository: bench is not installed with fastvae.
    sys.path[:] = [str(_TOOLS.parent), *(folder for folder in sys.path if Path(folder).resolve() != _TOOLS)]
    from bench.profile_step import main

    sys.exit(main(sys.argv[1:]))

if __name__ == "profile":
    # Another script of this folder is running and torch wants the standard library's: import that one in its place.
    import importlib.machinery
    import importlib.util
    import sysconfig

    _spec = importlib.machinery.PathFinder.find_spec("profile", [sysconfig.get_path("stdlib")])
    sys.modules["profile"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["profile"])
