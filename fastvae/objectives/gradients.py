"""Who gets which gradient, where two players share one forward pass."""

from torch import Tensor, nn
from torch.func import functional_call


def with_fixed_parameters(network: nn.Module, *inputs, **options) -> Tensor:
    """network(*inputs, **options), whose gradient reaches the inputs and not the network's parameters."""
    return functional_call(network, {name: p.detach() for name, p in network.named_parameters()}, inputs, options)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, to the bit where it is finite; its gradient arrives multiplied by the factor."""
    return x.detach() + factor * (x - x.detach())
