"""Writes the tables and the charts of docs/results.md from the records of complete runs and of attributes.

python -m bench.results.page            # writes docs/results.md's tables, docs/results-SET.png and its sheets
python -m bench.results.page --check    # only compares; exit status 1 if one of them is out of date
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from bench.reporting.marked_text import replaced
from bench.results import attributes, chart, pictures
from bench.results.measure import FOLDER
from bench.tables import prose
from fastvae.errors import FastvaeError
from fastvae.files.reading import read_json
from fastvae.lossnet.network import TAPS
from fastvae.recipes import RECIPES

ROOT = Path(__file__).parents[2]
NOTHING = "No complete run is recorded yet."
# Title, of a record's numbers, digits; a column that no run has is left out.
_COLUMNS = (
    ("FID", "fid", 1),
    ("FID of reconstructions", "reconstruction_fid", 1),
    ("PSNR, dB", "psnr_db", 2),
    ("SSIM", "ssim", 3),
    ("L_rec", "rec", 1),
    ("KL, nats", "kl", 1),
    ("sharpness", "held_out_sharpness", 2),
    ("critic's share", "gan_to_rec", 3),
)
_VGG_FILE = re.compile(r" --vgg \S+\.(?:safetensors|pth|pt|h5|npz)\b")
Record = dict[str, Any]


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.results.page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    check = parser.parse_args(arguments).check
    try:
        return _brought_up_to_date(check)
    except FastvaeError as error:
        print(f"bench.results.page: {error}", file=sys.stderr)
        return 1


def _brought_up_to_date(check: bool) -> int:
    sets, page = by_set(FOLDER), ROOT / "docs" / "results.md"
    recognitions = attributes.records(FOLDER / "attributes")
    sections = [tables(sets), *(attributes.section(name, record) for name, record in recognitions.items())]
    text = replaced(page.read_text(), "results", "\n\n".join(sections))
    charts = {ROOT / "docs" / f"results-{n}.png": records for n, records in sets.items() if chart.has_curves(records)}
    sheets = {
        ROOT / "docs" / f"results-{n}-{kind}.png": (kind, kept)
        for n, records in sets.items()
        for kind, kept in pictures.sheets(records, FOLDER).items()
    }
    bars = {ROOT / "docs" / f"results-{name}-attributes.png": record for name, record in recognitions.items()}
    outdated = [path for path, records in charts.items() if not chart.shows(path, records)]
    outdated += [path for path, record in bars.items() if not attributes.shows(path, record)]
    outdated += [path for path, sheet in sheets.items() if not pictures.shows(path, *sheet)]
    outdated += [page] if page.read_text() != text else []
    names = ", ".join(path.relative_to(ROOT).as_posix() for path in outdated)
    if check:
        print(f"out of date: {names}; run python -m bench.results.page" if outdated else "the page agrees")
        return int(bool(outdated))
    for path in outdated:
        if path == page:
            page.write_text(text)
        elif path in bars:
            attributes.draw(bars[path], path)
        elif path in sheets:
            pictures.draw_sheet(*sheets[path], path)
        else:
            chart.draw(path.stem.removeprefix("results-"), charts[path], path)
    print(f"written: {names}" if outdated else "the page agrees with the records")
    return 0


def by_set(folder: Path) -> dict[str, list[Record]]:
    """The records in a folder, in the recipes' order; under their recipe up to its first dash, such as celeba64.

    Those of one layer alone (celeba64-relu1_1) are under celeba64-layers, since they compare with each other.
    """
    places = {name: place for place, name in enumerate(RECIPES)}
    records = [read_json(path) for path in folder.glob("*.json")]
    sets: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (places.get(r["config"]["recipe"], len(places)), r["name"])):
        base, _, variant = record["config"]["recipe"].partition("-")
        sets.setdefault(f"{base}-layers" if variant in TAPS else base, []).append(record)
    return dict(sorted(sets.items()))


def tables(sets: dict[str, list[Record]]) -> str:
    """A section for each data set: numbers, chart, commands; Markdown.

    Raises:
        FastvaeError: distances of one section are by different networks or of different numbers of images.
    """
    return "\n\n".join(_section(name, records) for name, records in sets.items()) or NOTHING


def _section(name: str, records: list[Record]) -> str:
    columns = [c for c in _COLUMNS if any(c[1] in record["numbers"] for record in records)]
    lines = [["", "images", "minutes", "on", *(title for title, _, _ in columns)]]
    lines.append(["---", "---:", "---:", "---", *["---:"] * len(columns)])
    for record in records:
        link = f"[{record['name']}](../bench/records/results/{record['name']}.json)"
        cells = [_cell(record["numbers"].get(key), digits) for _, key, digits in columns]
        lines.append([link, f"{record['images']:,}", f"{record['seconds'] / 60:,.0f}", _trained_on(record), *cells])
    real = next((record["real_images"] for record in records if record["real_images"]), None)
    if real:
        lines.append(["real images", "", "", "", *(_cell(real.get(key), digits) for _, key, digits in columns)])
    kept = pictures.sheets(records, FOLDER)
    # The original weights are what is downloaded where --vgg is left out.
    commands = "\n".join(f"    {_VGG_FILE.sub('', record['command'])}" for record in records)
    return "\n\n".join(
        [
            f"## {name.replace('-layers', ': one layer alone (Fig. 7)')}",
            "\n".join(f"| {' | '.join(line)} |" for line in lines),
            prose(f"{_measured_on(records)} KL, sharpness and the critic's share are of the run's last tenth."),
            *([f"![Learning curves of the runs above](results-{name}.png)"] if chart.has_curves(records) else []),
            *(f"![{kind.capitalize()} of the runs above](results-{name}-{kind}.png)" for kind in kept),
            commands,
        ]
    )


def _measured_on(records: list[Record]) -> str:
    """The sentence that says of which images, and by which loss network, the scores are."""
    scored = [r for r in records if "fid" in r["numbers"]]
    if len({(r["evaluation"]["inception"]["sha256"], r["numbers"]["samples"]) for r in scored}) > 1:
        names = ", ".join(r["name"] for r in scored)
        raise FastvaeError(f"{names}: their FIDs are by different networks, or of different numbers of images")
    compared = {r["evaluation"]["protocol"] for r in records if "fid" in r["numbers"]}
    compared = {p for p in compared if not any(q.startswith(f"{p}; ") for q in compared)}  # the same without a floor
    alone = "without FID " if compared else ""
    held_out = {f"{alone}{r['numbers']['images']:,} held-out images" for r in records if "fid" not in r["numbers"]}
    by_stand_in = [r["name"] for r in records if "STAND-IN" in (r["evaluation"]["loss_network"] or "")]
    of = f" of {', '.join(by_stand_in)}" if len(by_stand_in) < sum("rec" in r["numbers"] for r in records) else ""
    network = f"; L_rec{of} by the stand-in loss network, not VGG-19" if by_stand_in else ""
    return f"Scores: {'; '.join(sorted(compared | held_out))}{network}."


def _trained_on(record: Record) -> str:
    machine, precision = record["machine"], record["config"]["train"]["precision"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return f"{machine['gpu']}, {precision}" if machine["gpu"] else f"{machine['cpu']}, {threads}, {precision}"


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
