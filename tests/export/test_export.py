"""`fastvae export`: files that other programs run, with the module's results."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.export import aoti_package, onnx_file
from fastvae.export.parts import PARTS, parts_of, worst_error
from fastvae.machine import compile_obstacle
from fastvae.pictures import to_pixels

TOOLS = Path(__file__).parents[2] / "tools"


def saved(folder: Path, *, stages: int) -> Path:
    """A saved VAE whose batch normalisations have something to fold."""
    torch.manual_seed(0)
    vae = fastvae.VAE(16, width=2, latent=4, stages=stages).train()
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(5):
            vae.reconstruct(torch.rand(8, 3, 16, 16) * 2 - 1)
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model"), stages=4)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "deep"
    assert main(["export", str(model), "--out", str(folder)]) == 0
    return folder


def test_three_onnx_files_with_any_batch(exported, model):
    import onnx

    assert sorted(p.name for p in exported.iterdir()) == [f"{name}.onnx" for name in sorted(PARTS)]
    for part in parts_of(fastvae.load(model), PARTS):
        path = exported / f"{part.name}.onnx"
        run = onnx_file.runner(path, part)
        for batch in (1, 7):
            x = part.example(batch)
            with torch.no_grad():
                expected = part.plain(x)
            for y, exact in zip(run(x), expected, strict=True):
                assert (y - exact).abs().max() <= 1e-5 * exact.abs().max() and exact.std() > 0.01
        file = onnx.load(path)
        assert [opset.version for opset in file.opset_import if not opset.domain] == [onnx_file.OPSET]
        assert file.graph.input[0].name == part.input and file.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        assert [o.name for o in file.graph.output] == list(part.outputs)
        assert "in [-1, 1]" in {p.key: p.value for p in file.metadata_props}["images"]
        # Folded: nothing is left of the normalisations, nor of the upsampling.
        assert not {"BatchNormalization", "Resize", "Upsample"} & {node.op_type for node in file.graph.node}


def test_nan_is_an_error(model, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    vae = fastvae.load(model)
    vae.decoder.stages[1][3].conv1.weight.data[0, 0] = float("nan")
    vae.save_pretrained(tmp_path / "nan")
    assert fastvae.load(tmp_path / "nan").reconstruct(torch.zeros(1, 3, 16, 16)).isnan().any()
    assert main(["export", str(tmp_path / "nan"), "--out", str(tmp_path / "out")]) == 1
    assert "decoder.stages.1.3.conv1.weight holds NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("broken", [0, 1, 2], ids=["first batch", "second", "last"])
@pytest.mark.parametrize("value, wrong", [(float("nan"), "nan"), (float("inf"), "inf")])
def test_one_wrong_value_in_any_batch_is_an_error(model, broken, value, wrong):
    (part,) = parts_of(fastvae.load(model), ("decoder",))
    calls = iter(range(3))

    def run(x):
        y = part.plain(x)[0].detach().clone()
        if next(calls) == broken:
            y[0, 0, 0, 0] = value
        return [y]

    assert str(worst_error(part, run)) == wrong


def test_zeros_agree_with_zeros_and_with_nothing_else(model):
    (part,) = parts_of(fastvae.load(model), ("decoder",))
    part = dataclasses.replace(part, plain=lambda x: [torch.zeros(len(x))])
    assert worst_error(part, part.plain) == 0
    assert worst_error(part, lambda x: [torch.full((len(x),), 1e-30)]) == float("inf")


def test_what_is_wrong_is_not_kept(model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")

    def off(path, part):
        return lambda x: [y.detach() + 0.01 for y in part.plain(x)]

    monkeypatch.setattr(onnx_file, "runner", off)
    assert main(["export", str(model), "--out", str(tmp_path), "--parts", "decoder"]) == 1
    assert "was not written: expected onnxruntime's results within" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_check_sees_wrong_shapes_and_values(model):
    (part,) = parts_of(fastvae.load(model), ("decoder",))
    assert worst_error(part, part.plain) == 0
    assert worst_error(part, lambda x: [part.plain(x)[0][:, :, :8]]) == float("inf")
    # A file that ignores all but the first of a batch is found out.
    assert worst_error(part, lambda x: [part.plain(x)[0][:1].expand(len(x), -1, -1, -1)]) > 0.01


def test_names_that_are_not_utf8(model, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / os.fsdecode(b"\xfc")
    assert main(["export", str(model), "--parts", "decoder", "--device", "cpu", "--out", str(out)]) == 0
    assert [path.stem for path in out.iterdir()] == ["decoder"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [28, 48, 128])
def test_every_size_is_exported(size, tmp_path):
    pytest.importorskip("onnxruntime")
    fastvae.VAE(size, width=2, latent=4).save_pretrained(tmp_path / "model")
    flags = ["--parts", "reconstruct", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["export", str(tmp_path / "model"), *flags]) == 0  # compared with the module before it is kept
    assert (tmp_path / "out" / "reconstruct.onnx").is_file()


@pytest.mark.slow  # what is packed is what the ONNX files hold, whose tests always run
@pytest.mark.skipif(compile_obstacle(torch.device("cpu")) is not None, reason="needs a C++ compiler")
def test_a_package_runs_without_fastvae(tmp_path, capfd, monkeypatch):
    """Its folder has a name that is not UTF-8, and the picture's pixels come as rows of RGB."""
    # For one package, compiling the headers in advance takes longer than it spares.
    monkeypatch.setattr("torch._inductor.config.aot_inductor.precompile_headers", False)
    model = saved(tmp_path / "model", stages=1)  # whose compiling takes a third of four stages'
    out = tmp_path / os.fsdecode(b"\xfc")
    flags = ["--format", "aoti", "--parts", "reconstruct", "--device", "cpu", "--out", str(out)]
    assert main(["export", str(model), *flags]) == 0
    said = capfd.readouterr()
    assert (
        "processors like this one, CPU only, contiguous batches" in said.out and "compiling the reconstruct" in said.err
    )
    assert [path.name for path in out.iterdir()] == ["reconstruct.pt2"]
    package = shutil.copy(out / "reconstruct.pt2", tmp_path)
    Image.effect_noise((30, 20), 80).convert("RGB").save(tmp_path / "in.png")
    without_fastvae = "import runpy, sys; sys.modules['fastvae'] = None; sys.argv = sys.argv[1:]"
    code = f"{without_fastvae}; runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [TOOLS / "run_package.py", package, tmp_path / "in.png", tmp_path / "out.png"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, cwd=tmp_path)
    with Image.open(tmp_path / "in.png") as image, Image.open(tmp_path / "out.png") as reconstructed:
        pixels = np.array(image.crop((5, 0, 25, 20)).resize((16, 16)))
        found = np.array(reconstructed)
    with torch.no_grad():
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        expected = to_pixels(fastvae.load(model).reconstruct(x))[0]
    assert np.abs(found.astype(int) - expected).max() <= 1 and expected.std() > 1


def test_what_is_missing_is_said_before_the_work(model, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(model), "--out", str(tmp_path)]) == 1
    assert "needs onnxruntime: pip install -e '.[export]'" in capsys.readouterr().err
    monkeypatch.setattr(aoti_package, "compile_obstacle", lambda device: "there is no C++ compiler")
    with pytest.raises(FastvaeError, match="cannot be made here: there is no C\\+\\+ compiler; --format onnx"):
        aoti_package.check_possible(torch.device("cpu"))


def test_bad_flags(model, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["export", str(model), "--out", str(tmp_path / "file")]) == 2
    assert "is a file: it names the folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none")]) == 1
    assert "no run folder" in capsys.readouterr().err


def test_no_room(model, small_disk, capsys):
    pytest.importorskip("onnxruntime")
    (small_disk / "filler").write_bytes(b"x" * (1 << 20))
    assert main(["export", str(model), "--out", str(small_disk), "--parts", "decoder"]) == 1
    assert "could not be written" in capsys.readouterr().err
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
