"""The pages about speed, from the newest record of each machine: tables, README's lines, and a chart.

python -m bench.speed_table            # writes bench/records/README.md, docs/speed.png and README.md's lines
python -m bench.speed_table --check    # only compares; exit status 1 if one of them is out of date
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from bench import speed_chart
from bench.reporting.marked_text import replaced
from bench.reporting.newest_records import SuiteRecord, newest
from bench.suites import SUITES
from bench.tables import Headline, prose

ROOT = Path(__file__).parents[1]
UP_TO_DATE = "the pages agree with the records"
NO_GPU = "Nothing has been measured on a GPU yet"

_INTRODUCTION = """# What was measured

Every suite of `python -m bench` leaves a record here, DATE-MACHINE-SUITE.json: the machine, the command, every sample
of every contender, and notes on what was left out; most have a picture beside them. A run of all leaves a folder,
DATE-MACHINE-all, whose all.json holds them all. Old records stay. The tables below hold what each suite's newest record
says, of CPUs (whichever processor it was) and of every kind of GPU, unless a test of an op that it needs failed then.
Records with other names are of trials and single measurements, to most of which [METHOD.md](../../fastvae/METHOD.md)
refers; the folder results has those of complete runs, which [docs/results.md](../../docs/results.md) shows. `python -m
bench.speed_table` writes this page; do not edit it by hand."""


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed_table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    options = parser.parse_args(arguments)
    records = ROOT / "bench" / "records"
    readme, chart = ROOT / "README.md", ROOT / "docs" / "speed.png"
    texts = {records / "README.md": page(records), readme: replaced(readme.read_text(), "speed", summary(records))}
    measured = headlined(records)
    title, bars = names(measured), [headline for _, headline in measured]
    outdated = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if not speed_chart.shows(chart, title, bars):
        outdated.append(chart)
    listed = ", ".join(path.relative_to(ROOT).as_posix() for path in outdated)
    if options.check:
        print(
            f"out of date: {listed}; run python -m bench.speed_table"
            if outdated
            else "all pages agree with the records"
        )
        return int(bool(outdated))
    for path in outdated:
        if path == chart:
            speed_chart.draw(title, bars, path)
        else:
            path.write_text(texts[path])
    print(f"written: {listed}" if outdated else UP_TO_DATE)
    return 0


def page(folder: Path) -> str:
    """bench/records/README.md: every table of every machine, Markdown.

    Args:
        folder: of the records.
    """
    machines = newest(folder, SUITES)
    parts = [
        _INTRODUCTION,
        prose(
            "Every table is one run in which the contenders took turns. Numbers are medians; brackets hold the "
            'quartiles unless the table names something else. "plain" is the same in stock PyTorch as its users write '
            'it, "fastvae" is ours. The plain training step is the usual form for two players: the critic first, then '
            "the VAE against the updated critic, which takes one pass of the critic more than fastvae's (Algorithm 1)."
        ),
    ]
    if not any(record.on_gpu for suites in machines.values() for record in suites.values()):
        parts.append(f"{NO_GPU}; the Triton kernels are proven in the interpreter and compiled, not timed.")
    for records in machines.values():
        parts += [suite.table(records[name]) for name, suite in SUITES.items() if name in records]
    return "\n\n".join(parts) + "\n"


def summary(folder: Path) -> str:
    """README's lines: the machine, and a line for each suite that compares ours with peers, Markdown.

    Args:
        folder: of the records.
    """
    measured = headlined(folder)
    if not measured:
        return "Nothing has been measured yet."
    intro = f"On {measured_on(measured)}; medians, in brackets their spread."
    by_machine = newest(folder, SUITES).values()
    intro += "" if any(each.on_gpu for records in by_machine for each in records.values()) else f" {NO_GPU}."
    lines = [headline.line for _, headline in measured]
    if len({record.machine for record, _ in measured}) > 1:
        lines = [headline.line_on(record.content["machine"]["cpu"]) for record, headline in measured]
    return "\n".join([prose(intro), "", *lines])


def names(measured: Iterable[tuple[SuiteRecord, Headline]]) -> str:
    """The machines of the records, human-readable."""
    return " and ".join(dict.fromkeys(record.machine for record, _ in measured))


def measured_on(measured: Iterable[tuple[SuiteRecord, Headline]]) -> str:
    """The machines and versions of torch; records of one name may come from several processors. Human-readable."""
    return f"{names(measured)}, torch " + " and ".join(
        dict.fromkeys(r.content["machine"]["torch"] for r, _ in measured)
    )


def headlined(folder: Path) -> list[tuple[SuiteRecord, Headline]]:
    """Ours against the best peers on one machine: the one with the most suites measured, a GPU before a CPU.

    Args:
        folder: of the records.

    Returns:
        Record and headline of each suite that has peers, in the order of the suites.
    """
    by_machine = []
    for records in newest(folder, SUITES).values():
        compared = [(records[name], suite.headline) for name, suite in SUITES.items() if name in records]
        compared = [(record, headline(record)) for record, headline in compared if headline]
        by_machine.append([(record, headline) for record, headline in compared if headline])
    return max(by_machine, key=len, default=[])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
