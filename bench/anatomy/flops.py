"""Arithmetic and least traffic of any piece of torch code, counted at its real shapes without running it.

The code runs on fake tensors, which have shapes and no memory. FLOPs are those of convolutions and matrix products, as
torch's own formulas have them, and of fastvae's ops, as their `cost` has them. Bytes are those of an ideal fusion: each
of the same operations reads each operand once and writes each result once, in one dtype, and everything in between
(batch normalisation, activations, pooling, sums, casts) happens on the way. No implementation of the same layers moves
less, unless it keeps a map on the chip from one convolution to the next.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fastvae.config import Config
from fastvae.kernels.conv_relu import cost as conv_relu_cost
from fastvae.kernels.cost import Cost
from fastvae.kernels.feature_loss import cost as feature_loss_cost
from fastvae.kernels.replicate_conv import cost as replicate_conv_cost
from fastvae.lossnet.network import LossNetwork
from fastvae.objectives import OBJECTIVES, Objective, name_of


def count(call: Callable[[], object], dtype: torch.dtype) -> Cost:
    """What a call must do at the least.

    Args:
        call: works on fake tensors (others would do, and be computed).
        dtype: in which every operand and result is taken to move: that of the run's convolutions.

    Returns:
        FLOPs, a multiply-add counting as two, and bytes.
    """
    with _Counter() as counter:
        call()
    return Cost(counter.flops, counter.elements * dtype.itemsize)


def shapes_of(config: Config) -> Objective:
    """The objective of a run in training mode, to be made and used inside `FakeTensorMode()`."""
    _, objective_class = OBJECTIVES[name_of(config.objective)]
    taps = objective_class.taps(config.objective)
    objective = objective_class(config.objective, config.model, LossNetwork(taps) if taps else None)
    objective.train()
    return objective


class _Counter(TorchDispatchMode):
    """Adds up the counted operations. FlopCounterMode does no more for FLOPs, but its hooks refuse `autograd.grad`."""

    def __init__(self):
        super().__init__()
        self.flops, self.elements = 0, 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        results = op(*args, **kwargs)
        packet = getattr(op, "overloadpacket", None)
        if formula := _FORMULAS.get(packet):
            self.flops += formula(*args, **kwargs, out_val=results)
            operands = _READ[packet](*args) if packet in _READ else (args, kwargs)
            self.elements += sum(t.numel() for t in tree_leaves((operands, results)) if isinstance(t, Tensor))
        return results


# A backward operation is handed what its gradients may need, and reads what the wanted ones do need. A weight that is
# also given packed is read once.


def _read_by_convolution(grad, x, weight, *settings) -> list[Tensor]:
    of_x, of_weight, _ = settings[-1]
    return [grad, *([weight] if of_x else []), *([x] if of_weight else [])]


def _read_by_replicate_conv(x, weight, bias, packed, *others) -> list:
    return [x, weight, bias, *others]


def _read_by_replicate_conv_backward(grad, y, x, weight, *settings) -> list[Tensor | None]:
    return [y, *_read_by_convolution(grad, x, weight, *settings)]


def _read_by_zero_padded_conv_backward(grad, x, weight, stride, of_x, of_weight) -> list[Tensor]:
    return _read_by_convolution(grad, x, weight, (of_x, of_weight, False))


_READ = {
    torch.ops.aten.convolution_backward: _read_by_convolution,
    torch.ops.fastvae.replicate_conv2d: _read_by_replicate_conv,
    torch.ops.fastvae.replicate_conv2d_with_sums: _read_by_replicate_conv,
    torch.ops.fastvae.replicate_conv2d_backward: _read_by_replicate_conv_backward,
    torch.ops.fastvae.zero_padded_conv2d_backward: _read_by_zero_padded_conv_backward,
}


def _replicate_conv(x: Tensor, weight: Tensor, upsample: int, direction: str) -> int:
    batch, inputs, height, width = x.shape
    return replicate_conv_cost(
        batch, inputs, len(weight), height, width, upsample=upsample, dtype=x.dtype, direction=direction
    ).flops


def _replicate_conv_forward(x, weight, bias, packed, residual, upsample, *_, out_val) -> int:
    return _replicate_conv(x, weight, upsample, "forward")


def _replicate_conv_with_sums(x, weight, bias, packed, upsample, *_, out_val) -> int:
    return _replicate_conv(x, weight, upsample, "forward")


def _replicate_conv_backward(grad, y, x, weight, packed, upsample, slope, wanted, *, out_val) -> int:
    of_x, of_weight, _ = wanted
    directions = ["data_gradient"] * of_x + ["weight_gradient"] * of_weight
    return sum(_replicate_conv(x, weight, upsample, direction) for direction in directions)


def _zero_padded_conv(x, weight, *_, out_val) -> int:
    return 2 * out_val.numel() * weight[0].numel()


def _zero_padded_conv_backward(grad, x, weight, stride, of_x, of_weight, *, out_val) -> int:
    return (of_x + of_weight) * _zero_padded_conv(x, weight, out_val=grad)


def _conv_relu(x, weight, bias, padding, *, out_val) -> int:
    batch, outputs, height, width = out_val.shape
    return conv_relu_cost(batch, weight.shape[1], outputs, (height, width), weight.shape[2], x.dtype).flops


def _conv_relu_gradient(grad, y, weight, *, out_val) -> int:
    return _conv_relu(out_val, weight, None, 1, out_val=y)


def _feature_loss(features, *_, out_val) -> int:
    # Its backward pass is elementwise, and so not counted.
    return feature_loss_cost([f.shape for f in features], features[0].dtype, with_gradients=False).flops


_FORMULAS = {
    **flop_registry,
    torch.ops.fastvae.replicate_conv2d: _replicate_conv_forward,
    torch.ops.fastvae.replicate_conv2d_with_sums: _replicate_conv_with_sums,
    torch.ops.fastvae.replicate_conv2d_backward: _replicate_conv_backward,
    torch.ops.fastvae.zero_padded_conv2d: _zero_padded_conv,
    torch.ops.fastvae.zero_padded_conv2d_backward: _zero_padded_conv_backward,
    torch.ops.fastvae.conv_relu: _conv_relu,
    torch.ops.fastvae.conv_relu_gradient: _conv_relu_gradient,
    torch.ops.fastvae.feature_loss: _feature_loss,
}
