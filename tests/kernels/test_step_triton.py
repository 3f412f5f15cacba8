"""The whole training step through the Triton kernels, interpreted, against Algorithm 1 in stock torch."""

import pytest

from tests.kernels import interpreter
from tests.kernels.interpreter import interpreted
from tests.train.test_reference_step import compare_in_float32

KERNELS = {
    "forward_kernel",
    "data_gradient_kernel",
    "weight_gradient_kernel",
    "feature_loss_kernel",
    "bias_relu_kernel",
    "adam_clip_kernel",
    "rmsprop_clip_kernel",
}


@pytest.mark.slow
def test_the_step_is_as_good_as_the_reference(monkeypatch):
    launch, launched = interpreter._launch, set()

    def recording(kernel, *rest):
        launched.add(kernel.fn.__name__)
        launch(kernel, *rest)

    monkeypatch.setattr(interpreter, "_launch", recording)
    with interpreted():
        # The VAE on Adam, the critic on RMSprop: one step launches every kernel that a step can.
        compare_in_float32("rmsprop", steps=1, size=3)
    assert launched >= KERNELS
