"""The loss network's benchmark: its gate, its counts, its record and the 8-bit side note."""

import json

import pytest
import torch

from bench.anatomy import flops
from bench.kernels import bench_lossnet, fp8
from bench.kernels.bench_lossnet import WORK, least, main, measurements
from bench.measuring.ceilings import Ceilings
from fastvae.lossnet import LossNetwork


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Without the seconds that ceilings and the compiler take, which are tried elsewhere."""
    monkeypatch.setattr(
        bench_lossnet.ceilings, "measure", lambda *_, **__: Ceilings(10.0, {"float32": 0.1, "bfloat16": 0.1})
    )
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def test_every_form_passes_the_gate_and_is_recorded(tmp_path):
    out = tmp_path / "lossnet.json"
    assert main(["--tiny", "--fp8", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert {row["work"] for row in record["rows"]} == set(WORK)
    assert {"two calls", "fastvae"} <= {row["contender"] for row in record["rows"]}
    assert [row["rounded_to"] for row in record["fp8"][:2]] == ["bfloat16", "float8_e4m3fn"]
    assert out.with_suffix(".png").exists()


def test_a_wrong_gradient_is_not_timed(tmp_path, monkeypatch):
    right = LossNetwork.forward_pair

    def wrong(network, images, fakes):
        features, fake_features = right(network, images, fakes)
        return features, (fake_features[0].detach(), *fake_features[1:])

    monkeypatch.setattr(LossNetwork, "forward_pair", wrong)
    out = tmp_path / "lossnet.json"
    assert main(["--tiny", "--out", str(out)]) == 1
    assert "WRONG" in " ".join(json.loads(out.read_text())["notes"])


def test_the_floor_counts_what_torch_counts():
    forward, both = measurements(LossNetwork(), 2, 32, torch.float32, "cpu")
    assert flops.count(forward.contenders["two calls"], torch.float32).flops == forward.flops
    assert both.flops == least(2, 32, torch.float32, backward=True)[0] == 1.5 * forward.flops
    assert forward.bytes < both.bytes < 2 * forward.bytes


def test_8_bit_rounding():
    x = torch.tensor([448.0, 1.0, -0.3, 0.0])
    assert torch.equal(fp8.to_float8(x)[:2], x[:2])
    big = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-6
    error = (fp8.to_float8(big) - big).norm() / big.norm()
    assert 0.01 < error < 0.05  # three bits after the leading one


def test_unrounded_features_are_the_networks():
    network, images = LossNetwork(), torch.rand(1, 3, 16, 16) * 2 - 1
    for ours, expected in zip(fp8.features_of(network, images, lambda x: x), network(images), strict=True):
        torch.testing.assert_close(ours, expected)


def test_products_are_the_convolutions():
    assert (
        sum(2 * m * k * n for m, k, n in fp8.products(2, 64))
        == sum(least(2, 64, torch.float32, backward=True)[:1]) - 3 * 2 * 2 * 64**2 * 27 * 64
    )


@pytest.mark.parametrize("flag", ["--batch", "--rounds"])
def test_bad_numbers_are_refused(flag, capsys):
    with pytest.raises(SystemExit):
        bench_lossnet.main([flag, "0"])
    assert "must be 1 or more; got 0" in capsys.readouterr().err
