"""What the tests of the ops share."""

import pytest

from fastvae import native_library
from fastvae.kernels import conv_relu_native, winograd
from tests.kernels import poison


@pytest.fixture
def poisoned_memory():
    """Memory that no kernel wrote is NaN in this test."""
    with poison.poisoned_memory():
        yield


@pytest.fixture(params=["this processor's", 4, 16], ids=lambda lanes: f"{lanes} lanes")
def lanes(request, monkeypatch):
    """C++ with vectors as this processor has them, and as the narrowest and the widest have."""
    if request.param in (4, 16):
        loaded = native_library.library(winograd.SOURCES, ("-O1", f"-DFASTVAE_LANES={request.param}"))
        assert loaded.fastvae_outputs_at_a_time() == 2 * request.param
        monkeypatch.setattr(winograd, "_library", lambda: loaded)
    monkeypatch.setattr(conv_relu_native, "_filters", {})  # in the order of other vectors
