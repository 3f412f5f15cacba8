"""The gate of the step's benchmark: the plain step's gradients, and the reference's first update of the weights."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.step.plain_step import PlainStep
from fastvae.config import ModelConfig
from fastvae.exact_float32 import exact_float32
from fastvae.lossnet import LossNetwork
from fastvae.objectives.vae_wgan import FORMS, VaeWgan, VaeWganOptions
from fastvae.pictures import to_images


def check_same_step(loss_network: LossNetwork, pixels: Tensor, noise: Tensor) -> None:
    """Raises AssertionError unless both steps give encoder and decoder the same gradient, up to float32's rounding."""
    device = pixels.device
    plain = PlainStep(loss_network, 8, image_size=pixels.shape[1], device=device.type)
    # Algorithm 1 takes all gradients at the same weights, the peer updates its critic first: hold the weights still.
    for optimizer in (plain.vae_optimizer, plain.critic_optimizer):
        optimizer.param_groups[0]["lr"] = 0.0
    with torch.no_grad():
        for p in plain.critic.parameters():
            p.clamp_(-0.01, 0.01)
    objective = VaeWgan(
        VaeWganOptions(vgg="random", layers=loss_network.taps),
        ModelConfig(image_size=pixels.shape[1], width=8),
        copy.deepcopy(loss_network),
    )
    objective.to(device)
    take_weights(objective, plain)
    objective.train()
    with exact_float32():
        objective.loss(to_images(pixels), noise)[0].backward()
        plain(pixels, noise)
    for name in ("encoder", "decoder"):
        networks = getattr(plain, name), objective.networks[name]
        for (key, p), q in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
            assert p.grad.isfinite().all(), f"the plain step's gradient of {name}.{key} is not finite"
            same = torch.allclose(p.grad, q.grad, rtol=1e-2, atol=1e-2 * p.grad.abs().max().item())
            assert same, f"the gradient of {name}.{key} is not the plain step's"


Weights = dict[str, Tensor]

# The critic's weights are clipped to this after every update.
_CLIP = FORMS["paper"].clip


@torch.no_grad()
def weights(networks: dict[str, nn.Module]) -> Weights:
    """A copy of all parameters of each network, one after the other, float32 [N], on the host."""
    return {name: torch.cat([p.flatten() for p in network.parameters()]).cpu() for name, network in networks.items()}


def update_mismatch(before: Weights, after: Weights, expected: Weights, least_cosine: float) -> str | None:
    """How an update of the weights differs from the expected one; None if every network moved as expected.

    Adam's first step is nearly the sign of the gradient, so that every weight counts the same. Weights that the
    critic's clipping has moved say nothing about the gradient and are left out.

    Args:
        before: the weights before the update, the same for both updates.
        after: the weights after it.
        expected: the weights after an update that is known to be right.
        least_cosine: of the angle between the two changes.
    """
    for name, right in expected.items():
        free = right.abs() < _CLIP * (1 - 1e-6) if name == "critic" else torch.ones_like(right, dtype=torch.bool)
        moves = ((w[name] - before[name])[free] for w in (after, expected))
        cosine = F.cosine_similarity(*moves, dim=0).item()
        if not cosine >= least_cosine:
            return (
                f"the first step moves the {name} elsewhere: cosine {cosine:.3f} to the expected change, "
                f"below {least_cosine:g}"
            )
    return None


def take_weights(objective: VaeWgan, plain: PlainStep) -> None:
    """Copies the plain step's weights; its decoder has the same order under other keys."""
    for name, network in objective.networks.items():
        weights = getattr(plain, name).state_dict().values()
        network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
