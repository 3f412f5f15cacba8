"""Every kernel that the recipes start, compiled for GPUs that are not there: it must, and may hardly spill."""

import pytest
import torch

from bench.kernels.resources import CAPABILITIES, SPILL_LIMIT, of_recipes
from fastvae.kernels import dispatch

# What a block may have of shared memory, at the least of these GPUs: 64 KiB on 7.5, 99 KiB from 8.6 on.
MAX_SHARED = {(7, 5): 64 * 1024}
OTHERWISE_SHARED = 99 * 1024
# The oldest, the paper's successors in the cloud and the newest; `tools/dev kernels` compiles for all seven.
COMPILED = [
    pytest.param((7, 5), torch.float32, "celeba64", marks=pytest.mark.slow),
    ((9, 0), torch.bfloat16, "celeba64"),
    pytest.param((9, 0), torch.bfloat16, "celeba128", marks=pytest.mark.slow),
    pytest.param((12, 0), torch.bfloat16, "celeba64", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("capability", "dtype", "recipe"), COMPILED, ids=str)
def test_compiles_without_spilling(capability, dtype, recipe):
    found = of_recipes(capability, dtype, (recipe,))
    names = {variant.kernel.__name__ for variant, _ in found}
    assert {"forward_kernel", "data_gradient_kernel", "weight_gradient_kernel"} <= names
    assert {"feature_loss_kernel", "bias_relu_kernel", "statistics_kernel", "sums_kernel"} <= names
    assert ("adam_clip_kernel" in names) == (dtype == torch.float32)
    for variant, used in found:
        assert used.spilled <= SPILL_LIMIT, variant.name
        assert used.shared <= MAX_SHARED.get(capability, OTHERWISE_SHARED), variant.name


def test_the_oldest_gpus_take_what_is_said():
    assert not dispatch.supports("replicate_conv2d", torch.float16, (7, 5))
    assert all(dispatch.supports("replicate_conv2d", torch.float32, c) for c in CAPABILITIES)
