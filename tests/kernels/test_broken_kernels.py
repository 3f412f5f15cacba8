"""The interpreter's tests must see a fault of a single corner: each kernel here is broken on purpose."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fastvae.kernels import replicate_conv_launch, replicate_conv_triton
from tests.kernels.interpreter import interpreted
from tests.kernels.test_replicate_conv_triton import check

CLAMPED_ROW = "        i = tl.minimum(tl.maximum(row + s, 0), H - 1)\n"
CLAMPED_COLUMN = "        j = tl.minimum(tl.maximum(column + t, 0), W - 1)\n"
# In one corner of the map the pixel below is read instead of the clamped one.
WRONG_CORNER = CLAMPED_COLUMN + "        i = tl.where((row + s < 0) & (column + t < 0), tl.minimum(1, H - 1), i)\n"

# What is broken: the kernel's first line, the text in it, and what stands there instead.
BROKEN = {
    "forward reads a wrong pixel in one corner": ("def forward_kernel", CLAMPED_COLUMN, WRONG_CORNER),
    "forward wraps around below": (
        "def forward_kernel",
        CLAMPED_ROW,
        "        i = (tl.maximum(row + s, 0)) % H\n",
    ),
    "weight gradient reads a wrong pixel in one corner": ("def weight_gradient_kernel", CLAMPED_COLUMN, WRONG_CORNER),
    "data gradient forgets the last row's second reading": (
        "def data_gradient_kernel",
        "((s < 0) & bottom)",
        "((s < 0) & bottom & left)",
    ),
    "data gradient takes the weights of the shift that leaves the map": (
        "def data_gradient_kernel",
        "tl.where(turned_j, -t, t)",
        "tl.where(turned_j & top, -t, t)",
    ),
    "data gradient leaves out the last kind of pixels": (
        "def data_gradient_kernel",
        "tl.static_range(1, 9)",
        "tl.static_range(1, 8)",
    ),
    "the sum over splits forgets one": (
        "def reduce_weight_gradient_kernel",
        "(split < splits)",
        "(split < splits - 1)",
    ),
    "the bias' sum forgets a row": ("def reduce_weight_gradient_kernel", "(row < rows)", "(row < rows - 1)"),
    "phases read one tap of another pixel": ("def _read_by", "(p + a - 1 + U)", "(p + a + U)"),
}


def broken(tmp_path: Path, where: str, text: str, instead: str):
    """The kernels' module with one place changed."""
    source = Path(replicate_conv_triton.__file__).read_text()
    before, after = source.split(where)
    assert text in after
    path = tmp_path / "broken.py"
    path.write_text(before + where + after.replace(text, instead, 1))
    spec = importlib.util.spec_from_file_location("broken", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_kernel_is_found_out(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(replicate_conv_launch, "kernels", broken(tmp_path, *BROKEN[fault]))
    # Without upsampling there is one phase, and none to mix up.
    for upsample in (2,) if fault.startswith("phases") else (1, 2):
        with interpreted(), pytest.raises(AssertionError, match=r"relative error|not finite"):
            check((1, 3, 5, 4), 3, torch.float32, upsample, None)


def test_the_same_check_passes_when_nothing_is_broken(tmp_path, monkeypatch):
    same = broken(tmp_path, "def forward_kernel", CLAMPED_ROW, CLAMPED_ROW)
    monkeypatch.setattr(replicate_conv_launch, "kernels", same)
    with interpreted():
        for upsample in (1, 2):
            check((1, 3, 5, 4), 3, torch.float32, upsample, None)
