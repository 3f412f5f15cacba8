"""Parameters and memory of training by image size, counted without running it: python -m bench.anatomy.memory.

What a training step keeps from the forward pass until the backward pass is every storage that autograd saves, each
counted once (`torch.autograd.graph.saved_tensors_hooks`), without parameters and the loss network's weights. It is
counted on fake tensors, which have shapes and no memory, at batches of 2 and of 4; the difference, halved, is an
image's. A step's peak lies above by the gradients that the backward pass is working on, and by the program itself.
"""

import argparse
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.anatomy.flops import shapes_of
from fastvae.config import Config, ModelConfig
from fastvae.errors import UsageError
from fastvae.models.stages import count_stages
from fastvae.objectives import Objective
from fastvae.recipes import RECIPES

_SIZES = (32, 48, 64, 128, 256)
# Each parameter has a gradient and Adam's two averages.
_COPIES = 4
_MEGABYTE = 10**6


@dataclass(frozen=True)
class Memory:
    """What the training of a recipe holds at one image size.

    Attributes:
        model: the sizes of the networks.
        parameters: their number, by network.
        state: bytes of parameters, gradients, Adam's averages and batch normalisations' averages, in float32.
        loss_network: bytes of its weights, in float32; in bfloat16 half of them.
        saved: bytes that a step keeps for each image of the batch, by precision, "fp32" and "bf16".
    """

    model: ModelConfig
    parameters: dict[str, int]
    state: int
    loss_network: int
    saved: dict[str, int]


def memory_of(config: Config) -> Memory:
    """Counts the memory of a run; its batch size, device and precision do not matter."""
    with FakeTensorMode():
        objective = shapes_of(config)
        saved = {"fp32": _saved_per_image(objective, config.model.image_size, bf16=False)}
        parameters = {name: _count(net.parameters()) for name, net in objective.networks.items()}
        buffers = sum(_count(net.buffers()) for net in objective.networks.values())
        weights = 0 if objective.loss_network is None else _count(objective.loss_network.parameters())
        if objective.loss_network is not None:
            for parameter in objective.loss_network.features.parameters():
                parameter.data = parameter.data.bfloat16()  # `Module.to` refuses fake tensors that were used
        saved["bf16"] = _saved_per_image(objective, config.model.image_size, bf16=True)
    state = 4 * (_COPIES * sum(parameters.values()) + buffers)
    return Memory(config.model, parameters, state, 4 * weights, saved)


def saved_bytes(objective: Objective, images: Tensor, noise: Tensor, *, bf16: bool) -> int:
    """Bytes of what autograd saves in the passes of a step, without the networks' weights.

    Args:
        objective: in training mode; its batch statistics change.
        images: [B, 3, H, W] in [-1, 1].
        noise: [B, noise_size].
        bf16: under autocast to bfloat16.
    """
    networks = [*objective.networks.values(), *filter(None, [objective.loss_network])]
    weights = {t.untyped_storage()._cdata for n in networks for t in (*n.parameters(), *n.buffers())}
    largest = 0
    for part in objective.passes(0):
        storages = {}

        def save(tensor: Tensor, storages: dict = storages) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage
            return tensor

        precision = torch.autocast(images.device.type, torch.bfloat16) if bf16 else nullcontext()
        with precision, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            part.loss(images, noise)
        largest = max(largest, sum(s.nbytes() for key, s in storages.items() if key not in weights))
    return largest


def _saved_per_image(objective: Objective, size: int, *, bf16: bool) -> int:
    two, four = (
        saved_bytes(objective, torch.empty(n, 3, size, size), torch.empty(n, objective.noise_size), bf16=bf16)
        for n in (2, 4)
    )
    return (four - two) // 2


def _count(tensors: Iterable[nn.Parameter | Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def table(rows: list[Memory], batch: int) -> str:
    """The rows in Markdown, with the memory of a batch."""
    networks = list(rows[0].parameters)
    head = ["image", "stages", *(f"{name}, M" for name in networks), "weights, MB", "trained, MB"]
    head += [f"an image, {p}, MB" for p in rows[0].saved] + [f"batch of {batch}, {p}, GB" for p in rows[0].saved]
    lines = [head, ["---:"] * len(head)]
    for row in rows:
        size = row.model.image_size
        held = {"fp32": row.state + row.loss_network, "bf16": row.state + row.loss_network // 2}
        lines.append(
            [f"{size}x{size}", f"{count_stages(size, row.model.stages)}"]
            + [f"{row.parameters[name] / 1e6:.2f}" for name in networks]
            + [f"{4 * sum(row.parameters.values()) / _MEGABYTE:.0f}", f"{row.state / _MEGABYTE:.0f}"]
            + [f"{saved / _MEGABYTE:.1f}" for saved in row.saved.values()]
            + [f"{(held[p] + batch * saved) / 1e9:.1f}" for p, saved in row.saved.items()]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table of a recipe."""
    parser = argparse.ArgumentParser(prog="python -m bench.anatomy.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="celeba64")
    parser.add_argument("--image-size", type=int, nargs="+", default=_SIZES, metavar="PIXELS")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        parser.error(f"--batch-size must be 1 or more; got {options.batch_size}")
    config = RECIPES[options.recipe]()
    try:
        rows = [memory_of(replace(config, model=replace(config.model, image_size=n))) for n in options.image_size]
    except (UsageError, ValueError) as error:  # no networks halve it, or it is too small for the loss network's layers
        parser.error(str(error))
    print(table(rows, options.batch_size))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
