"""The parts of the step that are timed alone: compiled, they still compute their gradients."""

from dataclasses import replace

import torch

from bench.anatomy.parts import own_copy, passes
from bench.anatomy.table import costs
from bench.measuring.tiny import tiny_run
from fastvae.recipes import RECIPES
from fastvae.train.build import build, resolve


def test_compiled_parts_have_the_gradients_of_eager_ones(tmp_path, monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compiler(function, backend="aot_eager", **options)
    )
    config = tiny_run(RECIPES["celeba64"](), tmp_path)
    config = resolve(replace(config, model=replace(config.model, stages=1)))[0]
    objective = build(config).objective

    def gradients(compiled: bool) -> dict[str, list[torch.Tensor]]:
        torch.manual_seed(0)  # of the inputs and of what the backward passes start from
        calls = passes(own_copy(objective), config, compiled=compiled)
        results = {name: call() for name, call in calls.items()}
        return {name: [r] if isinstance(r, torch.Tensor) else list(r) for name, r in results.items()}

    eager, compiled = gradients(False), gradients(True)
    assert list(compiled) == list(eager) and "forward and backward" in eager
    for name, expected in eager.items():
        for result, right in zip(compiled[name], expected, strict=True):
            largest = right.abs().max().item()
            assert largest > 0, name
            torch.testing.assert_close(
                result, right, rtol=1e-3, atol=1e-3 * largest, msg=lambda message, n=name: f"{n}: {message}"
            )


def test_features_that_no_loss_compares_have_no_gradient(tmp_path):
    """A view compares one layer, and its critic reads another."""
    config = resolve(tiny_run(RECIPES["celeba64-relu2_1"](), tmp_path))[0]
    objective = build(config).objective
    assert {name for name, call in passes(objective, config).items() if call() is None} == set()
    assert costs(config, torch.float32)["feature loss"].flops > 0
