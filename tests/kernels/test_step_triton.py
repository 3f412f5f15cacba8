"""The whole training step through the Triton kernels, interpreted, against Algorithm 1 in stock torch."""

import pytest

from tests.kernels import interpreter
from tests.kernels.interpreter import interpreted
from tests.train.test_reference_step import compare_in_float32


@pytest.mark.parametrize("form", ["paper", "rmsprop"])
def test_the_step_is_as_good_as_the_reference(form, monkeypatch):
    launch, launched = interpreter._launch, set()

    def recording(kernel, *rest):
        launched.add(kernel.fn.__name__)
        launch(kernel, *rest)

    monkeypatch.setattr(interpreter, "_launch", recording)
    with interpreted():
        compare_in_float32(form, 2)
    print(launched)
