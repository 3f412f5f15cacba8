"""The ops that fastvae is built from. Each can be used on its own, in eager mode and under torch.compile.

Each op has one file that reads from top to bottom: what it computes, the reference in plain torch (the specification),
the backward pass, the registration, and the public function with its argument checks. Its Triton kernels are in the
file of the same name that ends in `_triton`, which is only imported where they run; `_native` is for C++ on CPUs, which
is in `native` and called through `winograd`. `dispatch` chooses the
implementation of an op, `tiles` its tile sizes; `address_table` lets one launch work on a list of tensors. This package
imports only torch, Triton, the standard library and what compiles C++ (`fastvae.native_library`), and knows nothing of
models or training.
"""

from .address_table import tables_copied_once
from .batch_norm import batch_norm, batch_norm_ref
from .conv_relu import conv_relu, conv_relu_ref
from .critic_update import adam_clip_, rmsprop_clip_
from .dispatch import force, provider
from .feature_loss import feature_loss, feature_loss_ref
from .gradient_reversal import reverse_gradient
from .packed_weight import pack_weights
from .replicate_conv import replicate_conv2d, replicate_conv2d_ref, replicate_conv2d_with_sums
from .zero_padded_conv import zero_padded_conv2d, zero_padded_conv2d_ref

__all__ = [
    "adam_clip_",
    "batch_norm",
    "batch_norm_ref",
    "conv_relu",
    "conv_relu_ref",
    "feature_loss",
    "feature_loss_ref",
    "force",
    "pack_weights",
    "provider",
    "replicate_conv2d",
    "replicate_conv2d_ref",
    "replicate_conv2d_with_sums",
    "reverse_gradient",
    "rmsprop_clip_",
    "tables_copied_once",
    "zero_padded_conv2d",
    "zero_padded_conv2d_ref",
]
