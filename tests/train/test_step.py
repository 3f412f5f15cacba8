"""One step: what is compiled, and the layout of its maps."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.kernels import dispatch
from fastvae.objectives import Pass
from fastvae.objectives.dcgan import DcganOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.train.build import build
from fastvae.train.held_out import evaluate
from fastvae.train.step import Step

CPU = torch.device("cpu")


def test_more_passes_than_torch_compiles_of_one_function_by_default(monkeypatch):
    """All passes are one function to it."""
    compiled, compile_ = [], torch.compile

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=backend, **options))
    weight = torch.ones((), requires_grad=True)

    def pass_with(factor: float) -> Pass:
        return Pass(f"times {factor}", lambda images, noise: (images.mean() * weight * factor, {}), ())

    passes = [pass_with(float(factor)) for factor in range(9)]
    step = Step(SimpleNamespace(passes=lambda step: passes, networks={}), {}, device=CPU, compile_passes=True)
    for _ in range(2):
        step(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, 1), 0)
    assert len(compiled) == len(passes)


class Convolutions(TorchDispatchMode):
    """The layouts of all maps and weights that convolutions read."""

    def __init__(self):
        super().__init__()
        self.contiguous: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution" in str(func):
            maps = [a for a in args if isinstance(a, torch.Tensor) and a.dim() == 4]
            self.contiguous += [m.is_contiguous() for m in maps]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("old", [True, False], ids=["old_gpu", "any_other"])
@pytest.mark.parametrize("options", [VaeWganOptions(vgg="random"), DcganOptions()], ids=["vae_wgan", "dcgan"])
def test_every_convolution_of_an_old_gpu_is_contiguous(options, old, monkeypatch):
    monkeypatch.setattr("fastvae.kernels.replicate_conv_aten._FEWEST_PIXELS", 0)  # as on a GPU
    if old:
        monkeypatch.setattr(dispatch, "_is_too_old", lambda device, forced: True)
    train = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=3)
    config = Config("test", options, model=ModelConfig(image_size=32, width=8), train=train)
    objective, _, step, _ = build(config)
    pixels = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8)
    with Convolutions() as seen:
        step(pixels, torch.randn(3, objective.noise_size), 0)
        evaluate(objective, step, pixels.numpy())
    assert len(seen.contiguous) > 30
    assert all(seen.contiguous) if old else seen.contiguous.count(True) < len(seen.contiguous) / 2
