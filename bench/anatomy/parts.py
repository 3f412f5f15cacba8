"""The training step part by part, each as a function of its own that can be timed, or counted on fake tensors.

    input                     the batch gathered on the device and normalised
    encoder                   and the draw of z and the KL divergence; forward and backward
    decoder                   forward and backward
    loss network, real        forward, alone
    loss network, generated   what the generated images add to it: both go through it in one batch
    loss network, backward    to the generated images; no gradient of a weight exists
    feature loss              forward and backward
    critic                    of real and generated maps, forward and backward
    optimiser, vae; critic    updates and clipping

The step is one that takes all losses from one forward pass (Algorithm 1). An objective without a critic or a loss
network has no such parts.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastvae.config import Config
from fastvae.kernels import reverse_gradient
from fastvae.objectives import Objective
from fastvae.objectives.losses import kl_divergence, reparameterise
from fastvae.pictures import to_images
from fastvae.train.rounded_weights import RoundedWeights

Call = Callable[[], object]
Precision = Callable[[], AbstractContextManager]
_Amount = TypeVar("_Amount")

# What is not timed alone, by what it is the difference of: the generated images share their pass with the real ones,
# and a backward pass cannot be captured apart from the stream that its forward pass ran on.
_REAL, _PAIR, _BOTH_WAYS = "loss network, real", "real and generated", "forward and backward"
_DIFFERENCES = {"loss network, generated": (_PAIR, _REAL), "loss network, backward": (_BOTH_WAYS, _PAIR)}


def own_copy(objective: Objective) -> Objective:
    """A copy to time, so that the original stays as it is; the loss network never changes and is shared."""
    return copy.deepcopy(objective, {id(objective.loss_network): objective.loss_network})


def passes(
    objective: Objective,
    config: Config,
    *,
    precision: Precision = nullcontext,
    rounded: bool = False,
    compiled: bool = False,
) -> dict[str, Call]:
    """All parts but the optimisers, on inputs of a step's shapes and layouts.

    Args:
        objective: on its device, in training mode; batch statistics change.
        config: of the run, for its shapes.
        precision: the autocast of the forward passes.
        rounded: whether all weights of a part are rounded to bfloat16 at once, as the step does under autocast.
        compiled: whether they are compiled, one by one.

    Returns:
        Functions without arguments by name, in the order of a step. What is measured of them goes through `apart`.
    """
    encoder, decoder = objective.networks["encoder"], objective.networks["decoder"]
    device = next(encoder.parameters()).device
    batch, size = config.train.batch_size, config.model.image_size

    def part(forward: Callable, inputs: Sequence[Tensor], *networks: nn.Module, backward: bool = True) -> Call:
        if rounded and networks:
            forward = RoundedWeights(networks, forward).rounded
        forward = torch.compile(forward, fullgraph=True, dynamic=False) if compiled else forward

        def run():
            with precision():
                return forward(*inputs)

        wanted = [t for t in inputs if t.requires_grad] + [p for n in networks for p in n.parameters()]
        if not (backward and wanted):
            return run
        seeds = [torch.randn_like(out) for out in run()]
        # A view compares one layer: the other features get no gradient.
        return lambda: torch.autograd.grad(run(), wanted, seeds, allow_unused=True)

    def encode(images: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        mean, log_variance = encoder(images)
        return reparameterise(mean, log_variance, noise), kl_divergence(mean, log_variance)

    # Random, since products of zeros take a GPU less power, and so less time.
    resident = torch.randint(256, (2 * batch, size, size, 3), dtype=torch.uint8, device=device)
    chosen = torch.arange(batch, device=device) * 2
    images, fakes = to_images(resident).split(batch)
    noise, z = (torch.randn(batch, objective.noise_size, device=device) for _ in range(2))
    calls = {
        "input": part(lambda rows, indices: to_images(rows.index_select(0, indices)), (resident, chosen)),
        "encoder": part(encode, (images, noise), encoder),
        "decoder": part(lambda z: (decoder(z),), (z.requires_grad_(),), decoder),
    }
    if objective.loss_network is None:
        return calls
    return calls | _behind_the_loss_network(objective, images, fakes, part, precision)


def _behind_the_loss_network(
    objective: Objective, images: Tensor, fakes: Tensor, part: Callable, precision: Precision
) -> dict[str, Call]:
    network = objective.loss_network
    with torch.no_grad(), precision():
        features, fake_features = network(images), [f.requires_grad_() for f in network(fakes)]
    fakes.requires_grad_()

    @torch.no_grad()
    def of_real(images: Tensor) -> tuple[Tensor, ...]:
        return network(images)

    def of_both(images: Tensor, fakes: Tensor) -> tuple[Tensor, ...]:
        return network.forward_pair(images, fakes)[1]

    # One number inside the graph, since torch 2.11 gives features that leave a compiled graph no gradient (see
    # `forward_pair`). It reads the taps once more, 64 MB in bfloat16 at batches of 64.
    def of_both_summed(images: Tensor, fakes: Tensor) -> tuple[Tensor]:
        return (sum(tap.sum(dtype=torch.float32) for tap in of_both(images, fakes)),)

    def distance(*maps: Tensor) -> tuple[Tensor]:
        return (objective.feature_distance(maps[: len(features)], maps[len(features) :]),)

    calls = {
        _REAL: part(of_real, (images,)),
        _PAIR: part(of_both, (images, fakes), backward=False),
        _BOTH_WAYS: part(of_both_summed, (images, fakes)),
        "feature loss": part(distance, (*fake_features, *features)),
    }
    if critic := objective.networks.get("critic"):

        def judge(real: Tensor, fake: Tensor) -> tuple[Tensor]:
            return (objective.critic_distance(real, reverse_gradient(fake)),)

        calls["critic"] = part(judge, (features[0], fake_features[0]), critic)
    return calls


def apart(amounts: dict[str, _Amount], minus: Callable[[_Amount, _Amount], _Amount]) -> dict[str, _Amount]:
    """Replaces the loss network's combined passes by the single ones.

    Args:
        amounts: what was measured or counted of the parts of `passes`, by name; some may be missing.
        minus: subtracts the second of two of them from the first.

    Returns:
        The amounts in the same order, those of several passes replaced by what the last of them adds.
    """
    added = {more: (name, less) for name, (more, less) in _DIFFERENCES.items()}
    separated = {}
    for name, amount in amounts.items():
        if name not in added:
            separated[name] = amount
        elif (less := added[name][1]) in amounts:
            separated[added[name][0]] = minus(amount, amounts[less])
    return separated


def optimisers(objective: Objective, lr: float) -> dict[str, Call]:
    """The updates of an objective's networks with gradients that are there already. Weights and state change."""
    calls = {}
    for name, update in objective.updates(lr).items():
        for group in update.optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.full_like(p, 1e-3)
        calls[f"optimiser, {name}"] = update.optimizer.step
    return calls
