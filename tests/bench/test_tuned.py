"""torch's speed settings are back afterwards, "none" too, which torch's own function does not restore."""

import pytest
import torch

from bench.measuring.tuned import tuned


def found() -> tuple:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.benchmark


@pytest.mark.parametrize("precision", ["none", "ieee", "tf32"])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_it_undoes_itself(precision, device):
    before = found()
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        outside = found()
        with tuned(device):
            assert found() == (("tf32", True) if device == "cuda" else outside)
        assert found() == outside
    finally:
        torch.backends.cuda.matmul.fp32_precision = before[0]
    assert found() == before
