"""Every kernel that the recipes start, compiled for GPUs that are not there: it must, and may hardly spill."""

import pytest
import torch

from bench.kernels.resources import CAPABILITIES, SPILL_LIMIT, Variant, of_recipes, resources
from fastvae.kernels import dispatch

# What a block may have of shared memory, at the least of these GPUs: 64 KiB on 7.5, 99 KiB from 8.6 on.
MAX_SHARED = {(7, 5): 64 * 1024}
OTHERWISE_SHARED = 99 * 1024


def check(variants: list[Variant], capability: tuple[int, int]) -> None:
    for variant in variants:
        used = resources(variant, capability)
        assert used.spilled <= SPILL_LIMIT, variant.name
        assert used.shared <= MAX_SHARED.get(capability, OTHERWISE_SHARED), variant.name


# The oldest, the paper's successors in the cloud and the newest; `tools/dev kernels` compiles for all seven.
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((9, 0), torch.bfloat16),
        pytest.param((7, 5), torch.float32, marks=pytest.mark.slow),
        pytest.param((12, 0), torch.bfloat16, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_celeba64_compiles_without_spilling(capability, dtype):
    variants = of_recipes(capability, dtype, ("celeba64",))
    names = {variant.kernel.__name__ for variant in variants}
    assert {"forward_kernel", "data_gradient_kernel", "weight_gradient_kernel"} <= names
    assert {"feature_loss_kernel", "bias_relu_kernel", "statistics_kernel", "sums_kernel"} <= names
    assert ("adam_clip_kernel" in names) == (dtype == torch.float32)
    check(variants, capability)


@pytest.mark.slow
def test_celeba128_compiles_without_spilling():
    """What celeba64 does not start, too."""
    known = of_recipes((9, 0), torch.bfloat16, ("celeba64",))
    others = [v for v in of_recipes((9, 0), torch.bfloat16, ("celeba128",)) if v not in known]
    assert others
    check(others, (9, 0))


def test_the_oldest_gpus_take_what_is_said():
    assert not dispatch.supports("replicate_conv2d", torch.float16, (7, 5))
    assert all(dispatch.supports("replicate_conv2d", torch.float32, c) for c in CAPABILITIES)
