"""Folding is exact: in float64 nothing is lost but the last digits."""

import copy

import pytest
import torch
from torch import nn

from fastvae.errors import FastvaeError
from fastvae.inference.fold import (
    FoldedConv2d,
    FoldedDecoder,
    FoldedEncoder,
    FoldedReconstruction,
    pack,
    require_finite,
)
from fastvae.models import VAE
from tests.kernels import interpreter
from tests.kernels.interpreter import interpreted


@pytest.fixture(scope="module")
def vae() -> VAE:
    """With statistics, scales and shifts as after some training."""
    torch.manual_seed(0)
    vae = VAE(32, width=4, latent=6).double().train()
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(5):
            vae.reconstruct(torch.rand(8, 3, 32, 32, dtype=torch.float64) * 2 - 1)
    return vae.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kernels", [False, True], ids=["torch", "kernels"])
def test_folding_is_exact(vae, images, kernels):
    encoder, decoder = FoldedEncoder(vae, kernels=kernels), FoldedDecoder(vae, kernels=kernels)
    with torch.no_grad():
        mean, log_variance = vae.encode(images)
        pairs = [
            (encoder(images)[0], mean),
            (encoder(images)[1], log_variance),
            (decoder(mean), vae.decode(mean)),
            (FoldedReconstruction(encoder, decoder)(images), vae.reconstruct(images)),
        ]
    for found, expected in pairs:
        assert (found - expected).abs().max() <= 1e-13 * expected.abs().max()


def test_the_statistics_matter(vae, images):
    """Without them the comparison above would hold for a fold that forgets them."""
    other = copy.deepcopy(vae)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.mul_(1.01)
    with torch.no_grad():
        off = (FoldedEncoder(other)(images)[0] - vae.encode(images)[0]).abs().max()
    assert off > 1e-4


def test_no_parameter_and_nothing_shared(vae):
    for part in (FoldedEncoder(vae), FoldedDecoder(vae)):
        assert not any(p.requires_grad for p in part.parameters())
        theirs = {t.data_ptr() for t in (*vae.parameters(), *vae.buffers())}
        assert not theirs & {t.data_ptr() for t in (*part.parameters(), *part.buffers())}
        assert not any(isinstance(module, nn.BatchNorm2d) for module in part.modules())


BAD = {
    "a filter": ("decoder.stages.1.3.conv1.weight", float("nan"), "decoder.stages.1.3.conv1.weight holds NaN"),
    "a linear layer": ("encoder.mean.bias", float("-inf"), "encoder.mean.bias holds NaN or infinite"),
    "a statistic": ("encoder.stages.0.1.running_mean", float("nan"), "encoder.stages.0.1.running_mean holds"),
    "a variance below zero": ("encoder.stages.0.1.running_var", -1.0, "encoder.stages.0.conv.weight becomes NaN"),
    "overflow": ("decoder.stages.0.1.weight", 1e300, "in float32: decoder.stages.0.conv.weight becomes NaN or inf"),
}


@pytest.mark.parametrize("key, value, words", BAD.values(), ids=BAD.keys())
def test_what_is_not_finite_is_named(vae, key, value, words):
    other = copy.deepcopy(vae)
    other.state_dict()[key].view(-1)[0] = value
    with pytest.raises(FastvaeError, match=words):
        require_finite(other, torch.float32)


def test_half_precision_overflows_sooner(vae):
    other = copy.deepcopy(vae)
    other.decoder.linear.weight.data[0, 0] = 1e5
    require_finite(other, torch.float32)
    require_finite(other, torch.bfloat16)
    with pytest.raises(FastvaeError, match=r"in float16: decoder.linear.weight becomes .* values above 6.55e\+04"):
        require_finite(other, torch.float16)


def test_overflow_is_found_just_where_it_begins(vae):
    """However the bound that spares the folding is calculated."""
    refused = []
    for exponent in range(30):
        other = copy.deepcopy(vae)
        for module in other.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.mul_(2.0**exponent)
        state = FoldedReconstruction(FoldedEncoder(other), FoldedDecoder(other)).state_dict().values()
        overflows = not all(value.half().isfinite().all() for value in state)
        try:
            require_finite(other, torch.float16)
            refused.append(False)
        except FastvaeError:
            refused.append(True)
        assert refused[-1] == overflows
    assert {True, False} == set(refused)


def test_lazily_negated_weights_are_folded_negated(vae, images):
    other = copy.deepcopy(vae)
    for module in other.modules():
        for tensors in (module._parameters, module._buffers):
            for name, t in tensors.items():
                if t is not None and t.is_floating_point():
                    negated = torch._neg_view(-t.detach())
                    tensors[name] = nn.Parameter(negated) if tensors is module._parameters else negated
    assert other.decoder.linear.weight.is_neg()
    both = FoldedReconstruction(FoldedEncoder(other), FoldedDecoder(other))
    assert not any(t.is_neg() for t in both.state_dict().values())
    assert torch.equal(both(images), FoldedReconstruction(FoldedEncoder(vae), FoldedDecoder(vae))(images))


def packed(module: nn.Module) -> list[bool]:
    return [conv.packed is not None for conv in module.modules() if isinstance(conv, FoldedConv2d) and conv.kernels]


def test_packed_weights_compute_the_same_and_no_call_packs_again(monkeypatch):
    decoder, launch, launched = FoldedDecoder(VAE(16, 2, 3, stages=4).eval(), kernels=True), interpreter._launch, []

    def recording(kernel, *rest):
        launched.append(kernel.fn.__name__)
        launch(kernel, *rest)

    monkeypatch.setattr(interpreter, "_launch", recording)
    z = torch.randn(1, 3)
    with interpreted():
        expected = decoder(z)
        assert launched.count("pack_weights_kernel") == 10
        launched.clear()
        pack(decoder)
        assert launched == ["pack_weights_kernel"] and packed(decoder) == 10 * [True]
        found = decoder(z)
    assert launched == ["pack_weights_kernel"] + 10 * ["forward_kernel"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("change", ["cast", "load", "copy"])
def test_a_changed_weight_is_not_read_from_its_packed_copy(change):
    vae = VAE(16, 2, 3, stages=4).eval()
    decoder, other = FoldedDecoder(vae, kernels=True), FoldedDecoder(VAE(16, 2, 3, stages=4).eval(), kernels=True)
    with interpreted():
        pack(decoder)
    assert not any("packed" in name for name in decoder.state_dict())
    if change == "copy":
        same = copy.deepcopy(decoder)
        assert packed(same) == 10 * [True] and same.to_image.packed is not decoder.to_image.packed
    elif change == "cast":
        assert packed(decoder.to(torch.float64)) == 10 * [False]
    else:
        decoder.load_state_dict(other.state_dict())
        assert packed(decoder) == 10 * [False]


def test_without_triton_nothing_is_packed():
    decoder, encoder = FoldedDecoder(VAE(16, 2, 3, stages=4).eval(), kernels=True), FoldedEncoder(VAE(16, 2, 3).eval())
    pack(decoder)
    pack(encoder)
    assert packed(decoder) == 10 * [False]
