"""`fastvae latency`: the arithmetic, the command from end to end, and what happens when it is stopped."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import fastvae
from fastvae.cli import latency as command
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.latency import measure as measuring
from fastvae.latency import picture, report, start
from fastvae.latency.measure import Cell, Latency
from fastvae.native.library import compiler


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    fastvae.VAE(16, width=2, latent=4).save_pretrained(folder)
    return folder


def test_percentiles_of_known_samples():
    found = measuring.latency([i / 1000 for i in range(1, 102)], batch=4)
    assert found == Latency(p50_ms=51.0, p95_ms=96.0, p99_ms=100.0, images_per_s=78.4, calls=101)


def test_the_command_from_end_to_end(model, tmp_path, capsys):
    out = tmp_path / "deep" / "latency.json"
    flags = ["--batch-sizes", "1", "3", "--seconds", "0.01", "--no-start", "--out", str(out), "--device", "cpu"]
    assert main(["latency", str(model), *flags]) == 0
    said = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert values["whole"] and values["machine"]["torch"] == torch.__version__ and values["machine"]["threads"]
    assert [(c["verb"], c["batch"]) for c in values["cells"]] == [
        (verb, batch) for verb in ("encode", "decode", "reconstruct") for batch in (1, 3)
    ]
    for cell in values["cells"]:
        for kind in ("accelerated", "plain"):
            found = cell[kind]
            assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] and found["calls"] >= 10
            assert found["images_per_s"] == pytest.approx(1e3 * cell["batch"] / found["p50_ms"], rel=0.01)
        assert cell["error"] <= 1e-5
    assert "reconstruct 3" in said and "torch" in said
    with Image.open(out.with_suffix(".png")) as drawn:
        assert drawn.width > 500


def test_starts_cold_and_warm(model):
    starts = start.measure_starts(model, (1,), "cpu")
    assert [s.name for s in starts] == ["plain", "accelerated, empty cache", "accelerated, warm cache"]
    plain, cold, warm = starts
    assert plain.accelerate_s < 0.5 and (compiler() is None or cold.accelerate_s > warm.accelerate_s)
    for s in starts:
        assert s.total_s >= s.import_s + s.load_s + s.accelerate_s + s.first_call_s - 0.01
        assert s.peak_mib > 50 and s.peak_gpu_mib is None
    assert "empty cache" in report.starts_table(starts)


def test_stopped_it_keeps_what_it_has(model, tmp_path, monkeypatch, capsys):
    whole = measuring.measure

    def stopped(*arguments):
        yield next(whole(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measure", stopped)
    out = tmp_path / "latency.json"
    flags = ["--batch-sizes", "1", "--seconds", "0.01", "--out", str(out), "--no-start", "--device", "cpu"]
    assert main(["latency", str(model), *flags]) == 130
    values = json.loads(out.read_text())
    assert not values["whole"] and len(values["cells"]) == 1
    assert "before it was stopped" in capsys.readouterr().out


def test_wrong_results_are_not_timed(model):
    vae = fastvae.load(model)
    other = fastvae.VAE(16, width=2, latent=4).eval().accelerate()
    with pytest.raises(FastvaeError, match="decode of 1: the accelerated results are"):
        list(measuring.measure(vae, other, ("decode",), (1,), 0.01))


def test_without_matplotlib_there_is_everything_else(model, tmp_path, monkeypatch, capsys):
    def none(*_):
        raise FastvaeError("no picture: matplotlib is not installed; pip install 'fastvae[bench]'")

    monkeypatch.setattr(picture, "draw", none)
    out = tmp_path / "latency.json"
    flags = ["--batch-sizes", "1", "--verbs", "decode", "--seconds", "0.01", "--no-start", "--out", str(out)]
    assert main(["latency", str(model), *flags]) == 0
    assert out.exists() and "matplotlib is not installed" in capsys.readouterr().err


def test_a_process_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "_PROCESS", "raise SystemExit('out of luck')")
    with pytest.raises(FastvaeError, match="how long a start takes failed: out of luck"):
        start.measure_starts(tmp_path, (1,), "cpu")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--seconds", "0"], "seconds must be more than 0"),
        (["--batch-sizes", "1", "0"], "batch-sizes are 1 or more; got 1 0"),
        (["--out", "latency.txt"], "should be a file that ends in .json"),
    ],
)
def test_bad_flags(model, flags, words, capsys):
    assert main(["latency", str(model), *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FastvaeError, match="choose another --out"):
        report.write(tmp_path / "file" / "x.json", run="r", model={}, machine={}, cells=[], starts=[], whole=True)


def test_the_table_says_what_was_measured():
    fast = Latency(1.0, 1.5, 2.0, 1000.0, 10)
    cell = Cell("encode", 1, fast, replace(fast, p50_ms=3.0), 1e-7)
    assert cell.speedup == 3.0
    assert report.cell_line(cell).split() == [
        *(["encode", "1", "1.000", "1.500", "2.000", "1,000"]),
        *(["3.000", "1.500", "2.000", "1,000", "3.00x"]),
    ]


def test_the_command_is_lazy():
    assert "torch" not in vars(command)
