"""The commands that made a run, as whoever makes it again would type them."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError
from fastvae.files.reading import read_json_lines


def of_run(run: Path, environment: dict[str, Any]) -> str:
    """One line: the command that began the run, and after "&&" each that went on with it otherwise than it had begun.

    Args:
        run: its folder.
        environment: of its environment.json.

    Raises:
        FastvaeError: environment.json has lost the command, or stats.jsonl cannot be read.
    """
    if not isinstance(begun := environment.get("command"), list):
        raise FastvaeError(f"{run / 'environment.json'} does not say by which command the run was begun")
    sittings = [(0, begun), *((each["step"], each["command"]) for each in environment.get("resumed", ()))]
    lines = list(read_json_lines(run / "stats.jsonl"))
    typed, before = [], None
    for step, command in sittings:
        ranks = next((line.get("ranks", 1) for line in lines if line["step"] > step and "images_per_s" in line), 1)
        flags = command[1:]
        # `train --resume RUN` alone changes nothing of what the run is, nor does torchrun, which starts it again.
        if not typed or (len(flags) > 3 and command != before):
            typed.append(shlex.join([*_program(command[0], ranks), *map(name_of, flags)]))
        before = command
    return " && ".join(typed)


def name_of(argument: str) -> str:
    """The last part of a path; anything else as it is."""
    return Path(argument).name if "/" in argument and Path(argument).expanduser().exists() else argument


def _program(program: str, ranks: int) -> Sequence[str]:
    name = Path(program).name
    module = name == "fastvae" or program.endswith("fastvae/__main__.py")
    if ranks > 1:
        return ["torchrun", "--nproc-per-node", str(ranks), *(["-m", "fastvae"] if module else [name])]
    return ["fastvae"] if module else ["python", name]
