"""README's section on speed, from the newest record of each machine.

python -m bench.speed_table            # writes it between README's marks
python -m bench.speed_table --check    # only compares; exit status 1 if README says something else
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from textwrap import fill

from bench.inference.accelerate_contenders import PEERS
from bench.reporting.newest_records import Found, newest
from bench.reporting.record import RECORDS

ROOT = Path(__file__).parents[1]
OPEN, CLOSE = "<!-- speed -->", "<!-- /speed -->"
OURS = "fastvae"


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed_table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    options = parser.parse_args(arguments)
    path = ROOT / "README.md"
    old = path.read_text()
    new = replaced(old, section(RECORDS))
    if options.check:
        print("README.md says what the records say" if old == new else "README.md: run python -m bench.speed_table")
        return int(old != new)
    path.write_text(new)
    return 0


def replaced(readme: str, text: str) -> str:
    """The README with this text between the marks.

    Raises:
        ValueError: it has not exactly one of each mark.
    """
    if readme.count(OPEN) != 1 or readme.count(CLOSE) != 1:
        raise ValueError(f"README.md needs {OPEN} and {CLOSE} once each, around its section on speed")
    before, _, rest = readme.partition(OPEN)
    return f"{before}{OPEN}\n{text}\n{CLOSE}{rest.partition(CLOSE)[2]}"


def section(folder: Path) -> str:
    """What lies between the marks, Markdown."""
    machines = newest(folder)
    parts = [
        _prose(
            "Every table is one run in which the contenders took turns. Numbers are medians; brackets hold the "
            'quartiles unless the table names something else. "plain" is the same in stock PyTorch as its users write '
            'it, "fastvae" is ours. The plain training step is the usual form for two players: the critic first, then '
            "the VAE against the updated critic, which takes one pass of the critic more than fastvae's (Algorithm 1)."
        )
    ]
    if not any(found.record["machine"]["gpu"] for suites in machines.values() for found in suites.values()):
        parts.append(
            "Nothing has been measured on a GPU yet; the Triton kernels are proven in the interpreter and compiled, "
            "not timed."
        )
    for suites in machines.values():
        parts += [table(suites[name]) for name, table in TABLES.items() if name in suites]
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    return fill(text, 120, break_on_hyphens=False)


def _caption(what: str, found: Found) -> str:
    shown = found.path.relative_to(ROOT).as_posix() if found.path.is_relative_to(ROOT) else found.path.name
    torch_version = found.record["machine"]["torch"]
    return f"**{what}** — {found.machine}, torch {torch_version}, [{found.date}]({shown})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(contender: str) -> str:
    return f"**{contender}**" if contender.startswith(OURS) else contender


def ratio(base: float, row_median: float, quartiles: list[float]) -> str:
    """How many times as fast as the base, and between which quartiles: "1.83 (1.80 to 1.85)"."""
    low, high = quartiles
    return f"{base / row_median:.2f} ({base / high:.2f} to {base / low:.2f})"


def step(found: Found) -> str:
    """Images a second and speed as a multiple of the plain step in eager float32."""
    rows, settings = found.record["rows"], found.record["settings"]
    base = next(r["median_s"] for r in rows if r["contender"] == "plain eager fp32")
    lines = [
        [_name(r["contender"]), _rate(r["images_per_s"]), ratio(base, r["median_s"], r["quartiles_s"])] for r in rows
    ]
    what = f"Training step of the VAE-WGAN, 64x64, width {settings['width']}, batches of {settings['batch']}"
    return f"{_caption(what, found)}\n\n{_table(['', 'images/s', 'speed'], lines)}"


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"


def inference(found: Found) -> str:
    """Reconstruction in milliseconds by batch, and the other two verbs in a sentence."""
    rows = [r for r in found.record["rows"] if r["verb"] == "reconstruct"]
    columns = sorted({(r["batch"], r["host_copies"]) for r in rows})
    lines = []
    for contender in dict.fromkeys(r["contender"] for r in rows):
        cells = {(r["batch"], r["host_copies"]): r for r in rows if r["contender"] == contender}
        shown = (f"{r['median_ms']:.3g} ({r['p99_ms']:.3g})" if (r := cells.get(c)) else "" for c in columns)
        lines.append([_name(contender), *shown])
    head = ["", *(f"{batch}{', host to host' if host else ''}" for batch, host in columns)]
    what = "Reconstruct: milliseconds, median (99th percentile), by images a call"
    text = f"{_caption(what, found)}\n\n{_table(head, lines)}"
    others = [f"{verb} {_range(found, verb)}" for verb in ("encode", "decode") if _range(found, verb)]
    return f"{text}\n\nAgainst the best peer, times as fast: {'; '.join(others)}." if others else text


def _range(found: Found, verb: str) -> str:
    """Ours against the best peer over all batches, "1.1 to 1.9"."""
    jobs: dict[tuple, list] = {}
    for r in found.record["rows"]:
        if r["verb"] == verb:
            jobs.setdefault((r["batch"], r["host_copies"]), []).append(r)
    ratios = [gain for rows in jobs.values() if (gain := _gain(rows, "median_ms"))]
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""


def _gain(rows: list[dict], key: str) -> float | None:
    """The best peer's time over our best."""
    ours, peers = ([r[key] for r in rows if r["contender"].startswith(OURS) == own] for own in (True, False))
    return min(peers) / min(ours) if ours and peers else None


def accelerate(found: Found) -> str:
    """Reconstruct in milliseconds by batch and contender, and the verdicts."""
    rows = found.record["rows"]
    batches = sorted({r["batch"] for r in rows})
    best = {b: min(r["median_ms"] for r in rows if r["batch"] == b and r["contender"] in PEERS) for b in batches}
    lines = []
    for contender in dict.fromkeys(r["contender"] for r in rows):
        of_batch = {r["batch"]: r for r in rows if r["contender"] == contender}
        cells = []
        for batch in batches:
            if r := of_batch.get(batch):
                p99 = f" ({r['p99_ms']:.3g})" if r["p99_ms"] else ""
                cells += [f"{r['median_ms']:.3g}{p99}", f"{best[batch] / r['median_ms']:.2f}"]
            else:
                cells += ["", ""]
        lines.append([_name(contender), *cells])
    head = ["", *(word for b in batches for word in (f"{b}: ms, median (p99)", "x best peer"))]
    what = "`vae.accelerate()`: reconstruct, by images a call"
    settled = "\n".join(f"- {verdict['line']}" for verdict in found.record["verdicts"])
    explained = _prose(
        "Every contender in a process of its own, those that wait stopped. Peers are the plain ones and onnxruntime of "
        "the file that `fastvae export` writes; the folded ones are other ways that fastvae could have gone."
    )
    return f"{_caption(what, found)}\n\n{_table(head, lines)}\n\n{explained}\n\n{settled}"


def loader(found: Found) -> str:
    """Images a second, with their quartiles, and in a sentence why our fallback is slower than the peer if it is."""
    lines, rates = [], {}
    for r in found.record["rows"]:
        rates[r["contender"]] = r["images_per_s"]
        low, high = r["quartiles_images_per_s"]
        lines.append([_name(r["contender"]), f"{r['images_per_s']:,.0f} ({low:,.0f} to {high:,.0f})"])
    text = f"{_caption('Loading images, 178x218 JPEG to 64x64', found)}\n\n{_table(['', 'images/s'], lines)}"
    fallback, peer = rates.get("fastvae: Pillow"), rates.get("torch DataLoader + Pillow")
    if fallback and peer and fallback < peer:
        text += "\n\n" + _prose(
            "`fastvae: Pillow` decodes in threads of the training process, which share Python's lock, and has no "
            "worker processes as the DataLoader has: it is the fallback where DALI is not installed. The fast ways "
            "are packed files and DALI."
        )
    return text


def paper(found: Found) -> str:
    """The verdicts as the suite printed them; what was projected from a CPU is none."""
    verdicts = found.record["verdicts"]
    if found.record["machine"]["gpu"]:
        lines = "\n".join(f"- {verdict['line']}" for verdict in verdicts)
        return f"{_caption('The two claims of the paper, and its 11 GB', found)}\n\n{lines}"
    lines = "\n".join(f"- {_unsettled(v) if v['where'].startswith('projected') else v['line']}" for v in verdicts)
    caution = (
        "A projection from a CPU leaves out what launching kernels takes, which for a single image is most of it: "
        "only one from a GPU can settle the claims."
    )
    return f"{_caption('The two claims of the paper', found)}\n\n{lines}\n\n{caution}"


def _unsettled(verdict: dict) -> str:
    low, high = verdict["spread"]
    found = f"{verdict['value']:.4g} {verdict['unit']} ({low:.4g} to {high:.4g})"
    return f"{verdict['claim']}: not settled: {found}, {verdict['where']}"


def kernels(found: Found) -> str:
    """Every op against its best peer: the middle of its cases, and the worst and the best."""
    cases: dict[tuple[str, str], dict[tuple, list]] = {}
    for r in found.record["rows"]:
        op = f"`{r['op']}`" + (" with upsampling" if " up2 " in r["case"] else "")
        cases.setdefault((op, r["work"]), {}).setdefault((r["case"], r["dtype"]), []).append(r)
    lines = []
    for (op, work), by_case in cases.items():
        gains = [gain for rows in by_case.values() if (gain := _gain(rows, "median_us"))]
        if gains:
            spread = f" ({min(gains):.2f} to {max(gains):.2f})" if len(gains) > 1 else ""
            lines.append([f"{op}, {work}", f"{median(gains):.2f}{spread}", str(len(gains))])
    what = "The ops against the best of eager and compiled PyTorch: times as fast, median (worst to best) of the cases"
    return f"{_caption(what, found)}\n\n{_table(['', 'speed', 'cases'], lines)}"


TABLES: dict[str, Callable[[Found], str]] = {
    "step": step,
    "accelerate": accelerate,
    "inference": inference,
    "loader": loader,
    "paper": paper,
    "kernels": kernels,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
