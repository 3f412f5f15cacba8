"""Rounds all weights of a pass to bfloat16 in one kernel launch, and packs those of the decoder in another.

Autocast rounds each weight where it is used and converts each weight's gradient back to float32: in the compiled
VAE-WGAN step 28 tiny launches forward and 14 backward. Here one op rounds all weights and another converts all
gradients, so that autocast has nothing to do. The values are the same bit for bit. The weights of replication-padded
convolutions stay in float32, because their kernels sum taps before rounding; where Triton runs them, all are packed at
once for both directions (`fastvae.kernels.pack_weights`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastvae.kernels import pack_weights
from fastvae.nn import ReplicationConv2d


def _cast_all(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    cast = [torch.empty_like(t, dtype=dtype) for t in tensors]
    torch._foreach_copy_(cast, tensors)
    return cast


_cast_all_op = torch.library.custom_op("fastvae::cast_all", _cast_all, mutates_args=())


@_cast_all_op.register_fake
def _(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [torch.empty_like(t, dtype=dtype) for t in tensors]


def _setup(ctx, inputs, output) -> None:
    ctx.dtypes = [t.dtype for t in inputs[0]]


def _backward(ctx, grads):
    return _cast_all_op(list(grads), ctx.dtypes[0]), None


_cast_all_op.register_autograd(_backward, setup_context=_setup)


class RoundedWeights(nn.Module):
    """Calls a function that uses some networks, with the networks' weights rounded.

    Args:
        networks: whose weights are rounded: those of convolutions, transposed convolutions and linear layers. Not
            rounded are biases, whose gradients are sums that the compiler keeps in float32, and replication-padded
            convolutions, which are given packed weights beside their own.
        function: uses the networks.
    """

    def __init__(self, networks: Sequence[nn.Module], function: Callable):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._function = function
        self._names = tuple(
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            and not isinstance(module, ReplicationConv2d)
        )
        self._replicated = {
            name: module.upsample for name, module in self.named_modules() if isinstance(module, ReplicationConv2d)
        }

    def forward(self, *args):
        """`function(*args)` with the weights unchanged."""
        return self._function(*args)

    def rounded(self, *args):
        """`function(*args)` with weights in bfloat16."""
        parameters, replaced = dict(self.named_parameters()), {}
        if self._names:  # torch's list operations need at least one tensor
            rounded = _cast_all_op([parameters[name] for name in self._names], torch.bfloat16)
            replaced |= zip(self._names, rounded, strict=True)
        packed = pack_weights(
            [parameters[f"{name}.weight"] for name in self._replicated],
            list(self._replicated.values()),
            torch.bfloat16,
        )
        replaced |= {f"{name}.packed": weight for name, weight in zip(self._replicated, packed, strict=True)}
        return functional_call(self, replaced, args)
