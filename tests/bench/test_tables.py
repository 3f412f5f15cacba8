"""What the tables and headlines say of a record, by hand."""

from pathlib import Path

import pytest

from bench import speed_table, tables
from bench.inference.accelerate_contenders import BF16, CONTENDERS, PEERS
from bench.paper import projection
from bench.tables import ACCELERATES_BF16, ACCELERATES_PEERS
from tests.bench.suite_records import (
    ACCELERATE,
    CPU,
    GPU,
    INFERENCE,
    KERNELS,
    LOADER,
    LOADERS,
    LOSSNET,
    ONLY_OURS,
    PAPER,
    SOAK,
    named,
    step,
)


def test_records_without_the_base_or_verdicts_make_pages(folder):
    """As a run leaves them whose plain step failed, and one that was stopped before a verdict."""
    where = folder(
        **{named(1, "h200_step"): ONLY_OURS, named(1, "h200_paper"): {"machine": GPU, "rows": [{}]}},
        **{named(1, "cpu_paper"): {"machine": CPU, "rows": [{}]}},
    )
    assert "| **fastvae bf16** | 128 |  |" in speed_table.page(where)


def test_what_it_says_of_a_gpu(folder):
    where = folder(
        **{named(1, "h200_all"): {"suites": {"step": step(GPU, 0.5), "inference": INFERENCE, "loader": LOADER}}},
        **{named(1, "h200_paper"): PAPER},
    )
    text = speed_table.page(where)
    assert "not been measured on a GPU" not in text and "Nothing has been measured" not in text
    assert "batches of 64** — NVIDIA H200, torch 2.13.0+cu130, [2026-01-01](2026-01-01-h200-all.json)" in text
    assert "| plain eager fp32 | 32 | 1.00 (0.80 to 1.11) |" in text
    assert "| **fastvae bf16** | 128 | 4.00 (3.20 to 4.44) |" in text
    assert "| **fastvae captured bf16** | 0.123 (0.247) |" in text
    assert "encode 4.00 to 4.00" in text and "decode" not in text
    assert "| **fastvae: packed** | 12,346 (12,000 to 13,000) |" in text
    assert "- train <= 10 h: PASS, 0.02 h" in text


def test_what_it_says_without_a_gpu(folder):
    text = speed_table.page(folder(**{named(1, "cpu_kernels"): KERNELS}))
    assert "Nothing has been measured on a GPU yet" in text
    assert "unless the table names something else" in " ".join(text.split())
    assert "one pass of the critic more" in " ".join(text.split())
    assert "CPU (AVX512, 2 threads)" in text
    assert "| `replicate_conv2d` with upsampling, forward | 1.25 (0.50 to 2.00) | 2 |" in text
    assert "| `replicate_conv2d`, forward | 1.25 | 1 |" in text


def test_a_slower_tail_is_said():
    rows = [
        {"contender": "fastvae accelerate", "batch": 1, "median_ms": 1.0, "p99_ms": 5.0},
        {"contender": "plain eager", "batch": 1, "median_ms": 2.0, "p99_ms": 4.0},
        {"contender": "plain eager bf16", "batch": 1, "median_ms": 2.0, "p99_ms": 3.0},  # another precision
        {"contender": "folded eager", "batch": 1, "median_ms": 2.0, "p99_ms": 3.0},  # no peer
        {"contender": "fastvae accelerate", "batch": 64, "median_ms": 1.0, "p99_ms": None},
    ]
    said = tables._slower_tails(rows)
    assert (
        said
        == " By the 99th percentile `fastvae accelerate` is behind with batches of 1: 5 ms beside 4 of plain eager."
    )
    rows[1]["p99_ms"] = 6.0
    assert tables._slower_tails(rows) == ""


def test_a_projection_from_a_cpu_settles_nothing(folder):
    verdicts = [
        projection.train(12.0, (11.0, 13.0), "measured on a CPU"),
        projection.train(1.5, (1.0, 2.0), "projected"),
    ]
    paper = {"machine": CPU, "rows": [{}], "verdicts": [v.as_json() for v in verdicts]}
    text = speed_table.page(folder(**{named(1, "cpu_paper"): paper}))
    assert "- train <= 10 h: FAIL, 12 h (11 to 13), margin 0.833 x, measured on a CPU\n" in text
    assert "- train <= 10 h: not settled: 1.5 h (1 to 2), projected\n" in text and "PASS" not in text
    gpu = speed_table.page(folder(**{named(2, "h200_paper"): paper | {"machine": GPU}}))
    assert "- train <= 10 h: PASS, 1.5 h (1 to 2), margin 6.67 x, projected" in gpu


@pytest.mark.parametrize("ours", [900.0, 1100.0])
def test_a_fallback_that_is_slower_is_explained(folder, ours):
    rates = {"torch DataLoader + Pillow": 1000.0, "fastvae: Pillow": ours}
    rows = [{"contender": n, "images_per_s": r, "quartiles_images_per_s": [r, r]} for n, r in rates.items()]
    text = speed_table.page(folder(**{named(1, "cpu_loader"): {"machine": CPU, "rows": rows}}))
    assert ("it is the fallback" in text) == (ours < 1000)


def test_headlines_by_hand(folder):
    where = folder(
        **{
            named(1, "cpu_accelerate"): ACCELERATE,
            named(1, "cpu_inference"): INFERENCE | {"machine": CPU},
            named(1, "cpu_loader"): LOADERS,
            named(1, "cpu_kernels"): KERNELS,
            named(1, "cpu_lossnet"): LOSSNET,
        }
    )
    of_suites = {
        Path(record.link).stem.rpartition("-")[2]: headline for record, headline in speed_table.headlined(where)
    }
    assert of_suites["accelerate"][2:] == (2.0, pytest.approx(5 / 3), 2.5, "exported file, onnxruntime")
    # Of two jobs, 1 / 0.1234 and 1 / 0.25.
    assert of_suites["inference"][2:5] == pytest.approx(((1 / 0.1234 + 4) / 2, 4.0, 1 / 0.1234))
    # Packed images are not decoded, so that they are no match for the peer.
    assert of_suites["loader"][1:] == ("1,500 images/s", 1.5, 1.4, 1.6, "torch DataLoader + Pillow")
    assert of_suites["kernels"][2:5] == pytest.approx((1.25, 0.5, 2.0))
    assert of_suites["lossnet"][1:5] == ("2 ms", 1.5, 1.2, 2.0)


def test_suites_without_our_rows_or_peers_have_no_headline(folder):
    alone = {"machine": CPU, "settings": {"width": 32}, "rows": step(CPU, 1.0)["rows"][:1]}
    loaders = LOADERS | {"rows": LOADERS["rows"][:1]}
    assert speed_table.headlined(folder(**{named(1, "cpu_step"): alone, named(1, "cpu_loader"): loaders})) == []


def test_what_it_says_of_the_loss_network_and_of_the_soak(folder):
    text = speed_table.page(folder(**{named(1, "cpu_lossnet"): LOSSNET, named(1, "cpu_soak"): SOAK}))
    assert "|  | features, loss and gradient |\n" in text and "| **fastvae** | 2 (1.5 to 2.5) |" in text
    assert "- memory grown over 10 calls <= 4 MiB: PASS, 0 MiB" in text
    stopped = speed_table.page(folder(**{named(2, "cpu_soak"): SOAK | {"verdicts": []}}))
    assert "Stopped too early for a verdict." in stopped


def test_accelerates_peers_are_told_by_their_names():
    assert tuple(name for name in CONTENDERS if name.startswith(ACCELERATES_PEERS)) == PEERS
    assert ACCELERATES_BF16 == BF16


def test_what_it_says_of_accelerate(folder):
    text = speed_table.page(folder(**{named(1, "cpu_accelerate"): ACCELERATE}))
    assert "| **fastvae accelerate** | 2.5 (5) | 2.00 | 120 | 2.00 |" in text
    # In bfloat16 the best peer is another one, and for 64 images there is none.
    assert "| **fastvae accelerate bf16** | 1.6 (3.2) | 1.25 | 60 |  |" in text
    # The folded forms are fastvae's own: no peers, even where one is faster.
    assert "| folded eager | 1 (2) | 5.00 |  |  |" in text
    assert "- reconstruct 1 image, ms <= 2: FAIL, 2.5" in text
