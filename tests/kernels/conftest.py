"""What the tests of the ops share."""

import pytest

from tests.kernels import poison


@pytest.fixture
def poisoned_memory():
    """Memory that no kernel wrote is NaN in this test."""
    with poison.poisoned_memory():
        yield
