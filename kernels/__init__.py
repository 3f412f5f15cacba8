"""The ops that fastvae is built from: each one usable on its own, in eager mode and under torch.compile.

Every file holds one op and reads top to bottom: what it computes, the reference in plain torch (the
specification), the form that runs, and the public function with its argument checks. This package imports torch
and the standard library only and knows nothing of models or training.
"""

from .critic_update import adam_clip_, rmsprop_clip_
from .feature_loss import feature_loss, feature_loss_ref
from .gradient_reversal import reverse_gradient
from .replicate_conv import replicate_conv2d, replicate_conv2d_ref

__all__ = [
    "adam_clip_",
    "feature_loss",
    "feature_loss_ref",
    "replicate_conv2d",
    "replicate_conv2d_ref",
    "reverse_gradient",
    "rmsprop_clip_",
]
