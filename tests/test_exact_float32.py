"""TF32 is off where it should be, and what was set before is back afterwards."""

import re
from pathlib import Path

import pytest
import torch

from fastvae.exact_float32 import exact_float32

ROOT = Path(__file__).parents[1]


def precisions() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


@pytest.mark.parametrize("before", ["tf32", "ieee"])
@pytest.mark.parametrize("error", [None, ValueError])
def test_it_undoes_itself(before, error):
    convolutions, found = torch.backends.cudnn.conv, precisions()
    convolutions.fp32_precision = before
    try:
        outside = precisions()
        try:
            with exact_float32():
                assert precisions() == ("ieee", "ieee")
                if error:
                    raise error
        except ValueError:
            assert error
        assert precisions() == outside
    finally:
        convolutions.fp32_precision = found[1]
    assert precisions() == found


@pytest.mark.parametrize("folder", ["tests", "bench", "tools"])
def test_no_precision_is_set_by_a_monkeypatch_which_could_not_undo_it(folder):
    pattern = re.compile(r"setattr\([^)]*fp32_precision|setattr\([^)]*allow_tf32")
    assert not [path for path in (ROOT / folder).rglob("*.py") if pattern.search(path.read_text())]
