"""Percentiles, and results that are wrong or do not fit."""

import itertools
from types import SimpleNamespace

import pytest
import torch

import fastvae
from fastvae.errors import FastvaeError
from fastvae.latency import measure as measuring
from fastvae.latency.measure import Latency


def test_percentiles_of_known_samples():
    found = measuring.latency([i / 1000 for i in range(1, 102)], batch=4)
    assert found == Latency(p50_ms=51.0, p95_ms=96.0, p99_ms=100.0, images_per_s=78.4, calls=101)


def test_every_verb_at_every_batch_size(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    vae = fastvae.VAE(16, width=2, latent=4).eval()
    cells = list(measuring.measure(vae, dict.fromkeys((1, 3), vae.accelerate()), ("decode", "encode"), 0.001))
    assert [(cell.verb, cell.batch) for cell in cells] == [(v, b) for v in ("decode", "encode") for b in (1, 3)]
    for cell in cells:
        assert cell.error <= 1e-5 and cell.accelerated.calls == cell.plain.calls >= 10
        assert cell.speedup == 1.0


def test_the_two_take_turns_and_first_calls_of_a_turn_are_not_counted():
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    samples = measuring._in_turns(calls, 0.0)
    assert order == [*"aaaaaaabbbbbbb"] * 2
    assert {name: len(times) for name, times in samples.items()} == {"a": 10, "b": 10}


def test_wrong_results_are_not_timed():
    vae, other = (fastvae.VAE(16, width=2, latent=4).eval() for _ in range(2))
    with pytest.raises(FastvaeError, match="decode of 1: results must be within"):
        list(measuring.measure(vae, {1: other.accelerate()}, ("decode",), 0.001))


@pytest.mark.parametrize("verb", ["decode", "encode"])
def test_results_of_nan_are_not_timed(verb):
    vae = fastvae.VAE(16, width=2, latent=4).eval()
    fast = vae.accelerate()
    vae.decoder.to_image.bias.data[:] = vae.encoder.log_variance.bias.data[:] = float("nan")
    with pytest.raises(FastvaeError, match=f"{verb} of 1: results must be within .* they are nan off"):
        list(measuring.measure(vae, {1: fast}, (verb,), 0.001))


def test_a_batch_that_does_not_fit_is_said(monkeypatch):
    def none(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    vae = fastvae.VAE(16, width=2, latent=4).eval()
    monkeypatch.setattr(vae, "encode", none)
    with pytest.raises(FastvaeError, match="encode of 2 does not fit into memory: measure smaller batches"):
        list(measuring.measure(vae, {2: vae.accelerate()}, ("encode",), 0.001))


@pytest.mark.parametrize("wrong", [0, 1])
def test_nan_is_a_wrong_result_wherever_it_is(wrong):
    right = [torch.ones(2, 3), torch.ones(2, 3)]
    found = [value.clone() for value in right]
    found[wrong][1, 2] = torch.nan
    assert not measuring.largest_error(found, right) <= 1e9 and measuring.largest_error(right, right) == 0
