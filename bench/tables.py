"""What each suite's record says: its table, in Markdown, and in one line how fastvae compares with its best peer."""

from collections.abc import Iterable, Sequence
from statistics import median
from textwrap import fill
from typing import Any, NamedTuple

from bench.measuring.ours import is_ours
from bench.reporting.newest_records import SuiteRecord

Rows = Sequence[dict[str, Any]]

# In accelerate's records: how its peers' names begin. The other designs that fastvae could have chosen are none.
_ACCELERATE, ACCELERATES_PEERS = "fastvae accelerate", ("plain", "exported")
# How the names of those end that compute in bfloat16, and are compared with each other.
ACCELERATES_BF16 = " bf16"


class Headline(NamedTuple):
    """Ours against the best peer.

    Attributes:
        title: what was measured.
        value: ours with its unit, e.g. "4.14 ms"; or over how many cases the ratio is a median.
        ratio: how many times as fast ours is.
        low, high: quartiles of the ratio; of several cases the worst and the best.
        peer: which one, or which ones.
    """

    title: str
    value: str
    ratio: float
    low: float
    high: float
    peer: str

    @property
    def line(self) -> str:
        """A line of a list, Markdown."""
        return self.line_on(None)

    def line_on(self, processor: str | None) -> str:
        """The same, with the name of the processor."""
        spread = f"{self.low:.2f} to {self.high:.2f}"
        line = f"- {self.title}: {self.value}, **{self.ratio:.2f} times** as fast as {self.peer} ({spread})"
        line += f", {processor}." if processor else "."
        return fill(line, 120, subsequent_indent="  ", break_on_hyphens=False)


def prose(text: str) -> str:
    """A paragraph of the committed pages, in lines of at most 120 characters."""
    return fill(text, 120, break_on_hyphens=False)


def step(record: SuiteRecord) -> str:
    """Images a second and speed as a multiple of the plain step in eager float32, if that ran."""
    settings = record.content["settings"]
    base = next((r["median_s"] for r in record.rows if r["contender"] == "plain eager fp32"), None)
    lines = [
        [_name(r["contender"]), _rate(r["images_per_s"]), _ratio(base, r["median_s"], r["quartiles_s"]) if base else ""]
        for r in record.rows
    ]
    what = f"Training step of the VAE-WGAN, 64x64, width {settings['width']}, batches of {settings['batch']}"
    return f"{_caption(what, record)}\n\n{_table(['', 'images/s', 'speed'], lines)}"


def step_headline(record: SuiteRecord) -> Headline | None:
    """The fastest of ours against the fastest plain step."""
    ours, peer = _fastest(record.rows, "median_s")
    if not (ours and peer):
        return None
    title = f"Training step, 64x64, width {record.content['settings']['width']}"
    if not any("compiled" in row["contender"] for row in record.rows):
        title += ", without torch.compile"
    return _against(ours, peer, "s", title, f"{_rate(ours['images_per_s'])} images/s")


def accelerate(record: SuiteRecord) -> str:
    """Reconstruct in milliseconds by batch and contender, and the verdicts."""
    batches = sorted({r["batch"] for r in record.rows})
    lines = []
    for contender in dict.fromkeys(r["contender"] for r in record.rows):
        of_batch = {r["batch"]: r for r in record.rows if r["contender"] == contender}
        cells = []
        for batch in batches:
            if r := of_batch.get(batch):
                p99 = f" ({r['p99_ms']:.3g})" if r["p99_ms"] else ""
                peer = _accelerates_best_peer(record.rows, r)
                cells += [f"{r['median_ms']:.3g}{p99}", f"{peer['median_ms'] / r['median_ms']:.2f}" if peer else ""]
            else:
                cells += ["", ""]
        lines.append([_name(contender), *cells])
    head = ["", *(title for b in batches for title in (f"{b}: ms, median (p99)", "x best peer"))]
    explained = prose(
        "Every contender in a process of its own, those that wait stopped. Peers are the plain ones and runtimes of "
        "the file that `fastvae export` writes, each precision among its own kind; the folded ones are other ways that "
        f"fastvae could have gone.{_slower_tails(record.rows)}"
    )
    what = "`vae.accelerate()`: reconstruct, by images a call"
    parts = [_caption(what, record), _table(head, lines), explained, _verdicts(record)]
    return "\n\n".join(part for part in parts if part)


def accelerate_headline(record: SuiteRecord) -> Headline | None:
    """Of one image a call."""
    ours = next((r for r in record.rows if r["contender"] == _ACCELERATE and r["batch"] == 1), None)
    peer = _accelerates_best_peer(record.rows, ours) if ours else None
    if not (ours and peer):
        return None
    return _against(ours, peer, "ms", "`vae.accelerate()`, one image", f"{ours['median_ms']:.3g} ms")


def _slower_tails(rows: Rows) -> str:
    """A sentence for each of ours whose 99th percentile is above a peer's."""
    said = ""
    for ours in rows:
        peers = [r for r in _accelerates_peers(rows, ours) if r["p99_ms"]]
        best = min(peers, key=lambda r: r["p99_ms"], default=None)
        if ours["contender"].startswith(_ACCELERATE) and ours["p99_ms"] and best and best["p99_ms"] < ours["p99_ms"]:
            said += (
                f" By the 99th percentile `{ours['contender']}` is behind with batches of {ours['batch']}: "
                f"{ours['p99_ms']:.3g} ms beside {best['p99_ms']:.3g} of {best['contender']}."
            )
    return said


def _accelerates_best_peer(rows: Rows, row: dict[str, Any]) -> dict[str, Any] | None:
    """The fastest one for the same batch, in the same precision."""
    return min(_accelerates_peers(rows, row), key=lambda r: r["median_ms"], default=None)


def _accelerates_peers(rows: Rows, row: dict[str, Any]) -> list[dict[str, Any]]:
    in_bf16 = row["contender"].endswith(ACCELERATES_BF16)
    peers = [r for r in rows if r["batch"] == row["batch"] and r["contender"].startswith(ACCELERATES_PEERS)]
    return [r for r in peers if r["contender"].endswith(ACCELERATES_BF16) == in_bf16]


def inference(record: SuiteRecord) -> str:
    """Reconstruction in milliseconds by batch, and the other two verbs in a sentence."""
    rows = [r for r in record.rows if r["verb"] == "reconstruct"]
    columns = sorted({(r["batch"], r["host_copies"]) for r in rows})
    lines = []
    for contender in dict.fromkeys(r["contender"] for r in rows):
        cells = {(r["batch"], r["host_copies"]): r for r in rows if r["contender"] == contender}
        shown = (f"{r['median_ms']:.3g} ({r['p99_ms']:.3g})" if (r := cells.get(c)) else "" for c in columns)
        lines.append([_name(contender), *shown])
    head = ["", *(f"{batch}{', host to host' if host else ''}" for batch, host in columns)]
    what = "Reconstruct: milliseconds, median (99th percentile), by images a call"
    text = f"{_caption(what, record)}\n\n{_table(head, lines)}"
    gains = {verb: _gains([r for r in record.rows if r["verb"] == verb], _job) for verb in ("encode", "decode")}
    others = [f"{verb} {min(of_verb):.2f} to {max(of_verb):.2f}" for verb, of_verb in gains.items() if of_verb]
    return f"{text}\n\nAgainst the best peer, times as fast: {'; '.join(others)}." if others else text


def inference_headline(record: SuiteRecord) -> Headline | None:
    """The middle of all jobs."""
    return _over_cases(_gains(record.rows, _job), "Inference by `fastvae.load`", "jobs", "plain PyTorch")


def _job(row: dict[str, Any]) -> tuple:
    return row["verb"], row["batch"], row["host_copies"]


def loader(record: SuiteRecord) -> str:
    """Images a second, with their quartiles, and in a sentence why our fallback is slower than the peer if it is."""
    lines, rates = [], {}
    for r in record.rows:
        rates[r["contender"]] = r["images_per_s"]
        low, high = r["quartiles_images_per_s"]
        lines.append([_name(r["contender"]), f"{r['images_per_s']:,.0f} ({low:,.0f} to {high:,.0f})"])
    text = f"{_caption('Loading images, 178x218 JPEG to 64x64', record)}\n\n{_table(['', 'images/s'], lines)}"
    fallback, peer = rates.get("fastvae: Pillow"), rates.get("torch DataLoader + Pillow")
    if fallback and peer and fallback < peer:
        text += "\n\n" + prose(
            "`fastvae: Pillow` decodes in threads of the training process, which share Python's lock, and has no "
            "worker processes as the DataLoader has: it is the fallback where DALI is not installed. The fast ways "
            "are packed files and DALI."
        )
    return text


def loader_headline(record: SuiteRecord) -> Headline | None:
    """Of what decodes JPEGs, as the peer does: packed and resident images are decoded before."""
    rows = [r for r in record.rows if not r["contender"].endswith(("packed", "resident"))]
    ours, peer = ([r for r in rows if is_ours(r["contender"]) == own] for own in (True, False))
    if not (ours and peer):
        return None
    ours, peer = (max(some, key=lambda r: r["images_per_s"]) for some in (ours, peer))
    low, high = (quartile / peer["images_per_s"] for quartile in ours["quartiles_images_per_s"])
    value = f"{ours['images_per_s']:,.0f} images/s"
    ratio = ours["images_per_s"] / peer["images_per_s"]
    title = "Loading JPEGs" + (" with DALI" if "DALI" in ours["contender"] else "")
    return Headline(title, value, ratio, low, high, peer["contender"])


def paper(record: SuiteRecord) -> str:
    """The verdicts as the suite printed them; what was projected from a CPU is none."""
    if record.on_gpu:
        return f"{_caption('The two claims of the paper, and its 11 GB', record)}\n\n{_verdicts(record)}"
    verdicts = record.content.get("verdicts", ())
    lines = "\n".join(f"- {_unsettled(v) if v['where'].startswith('projected') else v['line']}" for v in verdicts)
    batch = record.content.get("batch")
    hours = (
        f"The hours measured here are of batches of {batch}, not the paper's 64, with which a CPU is faster "
        "(docs/results.md has complete runs). "
    )
    caution = prose(
        f"{hours if batch else ''}A projection from a CPU leaves out what launching kernels takes, "
        "which for a single image is most of it: only one from a GPU can settle the claims."
    )
    return f"{_caption('The two claims of the paper', record)}\n\n{lines}\n\n{caution}"


def _unsettled(verdict: dict[str, Any]) -> str:
    low, high = verdict["spread"]
    measured = f"{verdict['value']:.4g} {verdict['unit']} ({low:.4g} to {high:.4g})"
    return f"{verdict['claim']}: not settled: {measured}, {verdict['where']}"


def kernels(record: SuiteRecord) -> str:
    """Every op against its best peer: the middle of its cases, and the worst and the best."""
    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in record.rows:
        op = f"`{r['op']}`" + (" with upsampling" if " up2 " in r["case"] else "")
        cases.setdefault((op, r["work"]), []).append(r)
    lines = []
    for (op, work), rows in cases.items():
        if gains := _gains(rows, _case):
            spread = f" ({min(gains):.2f} to {max(gains):.2f})" if len(gains) > 1 else ""
            lines.append([f"{op}, {work}", f"{median(gains):.2f}{spread}", str(len(gains))])
    what = "The ops against the best of eager and compiled PyTorch: times as fast, median (worst to best) of the cases"
    return f"{_caption(what, record)}\n\n{_table(['', 'speed', 'cases'], lines)}"


def kernels_headline(record: SuiteRecord) -> Headline | None:
    """The middle of all cases of all ops."""
    return _over_cases(_gains(record.rows, _case), "Single ops", "calls", "eager or compiled PyTorch")


def _case(row: dict[str, Any]) -> tuple:
    return row["op"], row["case"], row["work"], row["dtype"]


def lossnet(record: SuiteRecord) -> str:
    """Milliseconds of each form of the loss network's pass, by work."""
    works = list(dict.fromkeys(r["work"] for r in record.rows))
    lines = []
    for contender in dict.fromkeys(r["contender"] for r in record.rows):
        of_work = {r["work"]: r for r in record.rows if r["contender"] == contender}
        lines.append([_name(contender), *(_milliseconds(of_work.get(work)) for work in works)])
    first = record.rows[0]
    what = f"The loss network's pass over real and generated images, {first['case']}, {first['dtype']}: ms"
    return f"{_caption(what, record)}\n\n{_table(['', *works], lines)}"


def _milliseconds(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    low, median_ms, high = (us / 1e3 for us in (row["quartiles_us"][0], row["median_us"], row["quartiles_us"][1]))
    return f"{median_ms:.3g} ({low:.3g} to {high:.3g})"


def lossnet_headline(record: SuiteRecord) -> Headline | None:
    """Of all that training asks of the network: features, loss and gradient."""
    rows = [r for r in record.rows if "gradient" in r["work"]]
    ours, peer = _fastest(rows, "median_us")
    if not (ours and peer):
        return None
    peer = peer | {"contender": f"PyTorch, {peer['contender']}"}
    return _against(
        ours, peer, "us", f"Loss network, {ours['case']}, {ours['dtype']}", f"{ours['median_us'] / 1e3:.3g} ms"
    )


def soak(record: SuiteRecord) -> str:
    """The verdicts."""
    settings = record.content["settings"]
    what = f"`vae.accelerate()` in use for long, width {settings['width']}"
    return f"{_caption(what, record)}\n\n{_verdicts(record) or 'Stopped too early for a verdict.'}"


def _caption(what: str, record: SuiteRecord) -> str:
    torch_version = record.content["machine"]["torch"]
    return f"**{what}** — {record.machine}, torch {torch_version}, [{record.date}]({record.link})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdicts(record: SuiteRecord) -> str:
    return "\n".join(f"- {verdict['line']}" for verdict in record.content.get("verdicts", ()))


def _name(contender: str) -> str:
    return f"**{contender}**" if is_ours(contender) else contender


def _ratio(base: float, row_median: float, quartiles: Sequence[float]) -> str:
    """How many times as fast as the base, and between which quartiles: "1.83 (1.80 to 1.85)"."""
    low, high = quartiles
    return f"{base / row_median:.2f} ({base / high:.2f} to {base / low:.2f})"


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"


def _fastest(rows: Iterable[dict[str, Any]], key: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The rows of our fastest contender, forced forms aside, and of the fastest peer."""
    rows = [r for r in rows if not r["contender"].endswith("in ATen")]
    ours, peers = ([r for r in rows if is_ours(r["contender"]) == own] for own in (True, False))
    ours, peer = (min(some, key=lambda r: r[key], default=None) for some in (ours, peers))
    return ours, peer


def _gains(rows: Rows, case_of) -> list[float]:
    """The best peer's time over our best, of each case."""
    cases: dict[tuple, list[dict[str, Any]]] = {}
    for r in rows:
        cases.setdefault(case_of(r), []).append(r)
    key = "median_us" if rows and "median_us" in rows[0] else "median_ms"
    pairs = [_fastest(of_case, key) for of_case in cases.values()]
    return [peer[key] / ours[key] for ours, peer in pairs if ours and peer]


def _against(ours: dict[str, Any], peer: dict[str, Any], unit: str, title: str, value: str) -> Headline:
    base = peer[f"median_{unit}"]
    first, third = ours[f"quartiles_{unit}"]
    return Headline(title, value, base / ours[f"median_{unit}"], base / third, base / first, peer["contender"])


def _over_cases(gains: Sequence[float], title: str, cases: str, peer: str) -> Headline | None:
    if not gains:
        return None
    return Headline(title, f"median of {len(gains)} {cases}", median(gains), min(gains), max(gains), peer)
