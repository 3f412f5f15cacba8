"""`fastvae latency` from end to end, and what happens when it is stopped."""

import itertools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.latency import measure as measuring
from fastvae.latency import start as starting
from fastvae.latency.start import Start

QUICK = ["--seconds", "0.001", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _every_call_takes_a_millisecond(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 1e3))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    fastvae.VAE(32, width=4, latent=8).save_pretrained(folder)
    return folder


def test_from_end_to_end(model, tmp_path, capsys):
    out = tmp_path / "deep" / "latency.json"
    flags = ["--batch-sizes", "2", "1", "2", *QUICK, "--no-start", "--out", str(out)]
    assert main(["latency", str(model), *flags]) == 0
    said = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert values["complete"] and values["machine"]["torch"] == torch.__version__ and values["machine"]["threads"]
    assert values["plain"].startswith("fastvae.VAE, eager, float32") and "float32" in values["accelerated"]
    assert [(c["verb"], c["batch"]) for c in values["cells"]] == [
        (verb, batch) for verb in ("encode", "decode", "reconstruct") for batch in (1, 2)
    ]
    for cell in values["cells"]:
        for kind in ("accelerated", "plain"):
            found = cell[kind]
            assert [found[name] for name in ("p50_ms", "p95_ms", "p99_ms")] == pytest.approx([1.0] * 3)
            assert found["images_per_s"] == pytest.approx(1e3 * cell["batch"]) and found["calls"] >= 10
        assert cell["error"] <= 1e-5
    assert values["starts"] == []
    assert "reconstruct 2" in said and f"torch {torch.__version__}" in said and "plain: fastvae.VAE, eager" in said
    with Image.open(out.with_suffix(".png")) as drawn:
        assert drawn.width > 500


@pytest.mark.parametrize("cores_busy", [0.2, 1.5])
def test_a_busy_machine_is_mentioned(model, tmp_path, monkeypatch, capsys, cores_busy):
    load = cores_busy * os.cpu_count()
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    out = tmp_path / "latency.json"
    flags = ["--batch-sizes", "1", "--verbs", "decode", *QUICK, "--no-start", "--out", str(out)]
    assert main(["latency", str(model), *flags]) == 0
    values = json.loads(out.read_text())
    assert values["load_average"] == round(load, 2) and (values["image_size"], values["stages"]) == (32, 3)
    assert ("busy with something else" in capsys.readouterr().out) == (cores_busy > 0.5)


def test_stopped_it_keeps_what_it_has(model, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        yield Start("plain", 1, 1.0, 1.0, 1.0, 1.0, 4.0, 321.0, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(starting, "measure_starts", stopped)
    out = tmp_path / "latency.json"
    out.write_text("an earlier call's")
    assert main(["latency", str(model), "--batch-sizes", "1", *QUICK, "--out", str(out)]) == 130
    assert out.read_text() == "an earlier call's"
    values = json.loads((tmp_path / "latency-incomplete.json").read_text())
    assert not values["complete"] and len(values["cells"]) == 3 and values["starts"][0]["peak_mib"] == 321.0
    assert "incomplete, as it was stopped" in capsys.readouterr().out


def test_stopped_among_the_cells(model, tmp_path, monkeypatch):
    measure = measuring.measure

    def stopped(*arguments):
        yield next(measure(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measure", stopped)
    out = tmp_path / "latency.json"
    assert main(["latency", str(model), "--batch-sizes", "1", *QUICK, "--out", str(out)]) == 130
    assert len(json.loads((tmp_path / "latency-incomplete.json").read_text())["cells"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"latency-incomplete.json", "latency-incomplete.png"}


def test_a_start_that_fails_keeps_the_cells(model, tmp_path, monkeypatch, capsys):
    def failed(*_):
        raise FastvaeError("the process failed")
        yield

    monkeypatch.setattr(starting, "measure_starts", failed)
    out = tmp_path / "latency.json"
    assert main(["latency", str(model), "--batch-sizes", "1", *QUICK, "--out", str(out)]) == 1
    values = json.loads((tmp_path / "latency-incomplete.json").read_text())
    assert len(values["cells"]) == 3 and "the process failed" in capsys.readouterr().err


def test_each_row_is_of_a_model_made_for_it(model, tmp_path, monkeypatch):
    """On a CPU the number of images decides how convolutions are computed, and so must not come from another row."""
    made, accelerate = [], fastvae.VAE.accelerate

    def noted(self, *arguments, **options):
        made.append(options["batch_sizes"])
        return accelerate(self, *arguments, **options)

    monkeypatch.setattr(fastvae.VAE, "accelerate", noted)
    flags = ["--batch-sizes", "4", "1", "--verbs", "decode", *QUICK, "--no-start", "--out", str(tmp_path / "n.json")]
    assert main(["latency", str(model), *flags]) == 0
    assert made == [(1,), (4,)]


def test_without_matplotlib_there_is_everything_else(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "latency.json"
    out.with_suffix(".png").touch()
    flags = ["--batch-sizes", "1", "--verbs", "decode", *QUICK, "--no-start", "--out", str(out)]
    assert main(["latency", str(model), *flags]) == 0
    assert out.exists() and not out.with_suffix(".png").exists(), "nor an earlier call's"
    assert "matplotlib is not installed; pip install -e '.[eval]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--seconds", "0"], "seconds must be more than 0"),
        (["--batch-sizes", "1", "0"], "batch-sizes must be 1 to 65536; got 1 0"),
        (["--out", "latency.txt"], "--out must end in .json"),
        (["--out", "/dev/null/latency.json"], "/dev/null is not a folder that can be written into"),
    ],
)
def test_bad_flags(model, flags, words, capsys):
    assert main(["latency", str(model), *flags]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


def test_help_does_not_wait_for_torch():
    ask = "import sys, fastvae.cli.latency; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == "[]\n"
