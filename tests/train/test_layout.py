"""The compiled VAE-WGAN step keeps every map in channels_last, forward and backward.

Read from the graphs that the compiler gets, whose tensors carry their strides; a convolution that is given another
layout would copy. Only where maps become vectors, and vectors maps, at the linear layers of encoder and decoder, does
the order change: half a megabyte each at the recipes' shapes, which Inductor writes in the order that is wanted.
"""

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.kernels import replicate_conv_aten
from fastvae.objectives.dcgan import DcganOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.train.build import build

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CONVOLUTIONS = ("aten.convolution.", "aten.convolution_backward.", "fastvae.replicate_conv2d", "fastvae.conv_relu")
BATCH = 3
COPIES = ("aten.clone.", "aten._to_copy.", "aten.copy.", "aten.contiguous.")


def graphs_of_a_step(
    device: str, precision: str, options, image_size: int = 32, stages: int | None = None
) -> list[torch.fx.GraphModule]:
    """Of the last pass of a step, forward and backward."""
    train = TrainConfig(device=device, precision=precision, compile="off", batch_size=BATCH)
    config = Config("test", options, model=ModelConfig(image_size, width=8, stages=stages), train=train)
    objective, _, step, _ = build(config)
    found = []

    def keep(graph, inputs):
        found.append(graph)
        return graph.forward

    torch._dynamo.reset()
    part = objective.passes(0)[-1]
    loss = torch.compile(step._loss(part), fullgraph=True, dynamic=False, backend=aot_autograd(fw_compiler=keep))
    pixels = torch.zeros(BATCH, image_size, image_size, 3, dtype=torch.uint8, device=device)
    with step.precision():
        total, _ = loss(pixels, torch.zeros(BATCH, objective.noise_size, device=device))
    total.backward()
    assert len(found) == 2
    return found


def is_map(value) -> bool:
    """Whether the layout of a tensor means something."""
    return isinstance(value, torch.Tensor) and value.dim() == 4 and value.shape[1] > 1 and value.shape[2:].numel() > 1


def is_channels_last(value: torch.Tensor) -> bool:
    return value.is_contiguous(memory_format=torch.channels_last)


def values(node: torch.fx.Node):
    """The tensors that a node takes and gives."""
    given = node.meta["val"] if isinstance(node.meta["val"], list | tuple) else [node.meta["val"]]
    return [n.meta["val"] for n in node.all_input_nodes] + list(given)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_no_map_changes_its_layout(device, precision, monkeypatch):
    # What a CPU does with maps as small as this test's, but not as a recipe's.
    monkeypatch.setattr(f"{replicate_conv_aten.__name__}._FEWEST_PIXELS", 0)
    convolutions, flips = 0, []
    for graph in graphs_of_a_step(device, precision, VaeWganOptions(vgg="random"), stages=4):
        for node in graph.graph.nodes:
            if node.op != "call_function" or "val" not in node.meta:
                continue
            name = str(node.target)
            maps = [v for v in values(node) if is_map(v)]
            # ATen's padding, which GPUs with Triton kernels do not run, changes the layout in torch 2.11.
            padded = any("replication_pad2d" in str(n.target) for n in node.all_input_nodes)
            if name.startswith(CONVOLUTIONS) and not padded:
                convolutions += 1
                wrong = [tuple(v.shape) + v.stride() for v in maps if not is_channels_last(v)]
                assert not wrong, (name, wrong)
            of_images = maps and maps[0].shape[0] in (BATCH, 2 * BATCH)  # and not weights
            # By the fastest axis, since a gradient may be three of a map's eight channels.
            if name.startswith(COPIES) and of_images and len({v.stride(1) == 1 for v in maps}) > 1:
                flips.append(tuple(maps[0].shape))
    assert convolutions > 80
    vectors = (BATCH, 8 * 8, 2, 2)  # what the linear layers see
    assert set(flips) == {vectors} and len(flips) <= 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
@pytest.mark.parametrize("image_size", [16, 32])
def test_no_transposed_convolution_of_a_generator_is_of_a_single_pixel(device, precision, image_size):
    # Its strides are predicted otherwise than cuDNN returns them, so that compiled training would fail on a GPU.
    maps_in, transposed = [], 0
    for graph in graphs_of_a_step(device, precision, DcganOptions(), image_size, stages=4):
        for node in graph.graph.nodes:
            name = str(node.target)
            if node.op != "call_function" or not name.startswith(("aten.convolution.", "aten.convolution_backward.")):
                continue
            backward = name.startswith("aten.convolution_backward")
            image = node.args[1 if backward else 0].meta["val"]
            if node.args[7 if backward else 6]:
                transposed += 1
                maps_in.append(image)
    assert transposed == 2 * (4 if image_size > 16 else 3)
    assert all(is_map(image) and is_channels_last(image) for image in maps_in)
