"""The one tolerance of the test suite: an op may be at most twice as far from float64 as plain torch is."""

import torch
from torch import Tensor


def relative_error(x: Tensor, exact: Tensor) -> float:
    """|x - exact| / |exact| in float64."""
    exact = exact.double()
    return ((x.double() - exact).norm() / exact.norm().clamp_min(1e-300)).item()


def assert_close(x: Tensor, plain: Tensor, exact: Tensor, terms: Tensor | None = None, stated: float = 0.0) -> None:
    """Fails unless x is as good as plain torch in x's own dtype.

    Args:
        x: the result under test.
        plain: what plain torch computes in the same dtype.
        exact: the float64 result.
        terms: for sums that may cancel, the same sums over absolute values, since rounding errors are relative to
            those; `exact` where left out.
        stated: the relative error that the op's documentation allows it, if that is larger.
    """
    assert x.shape == exact.shape, f"shape {list(x.shape)}, expected {list(exact.shape)}"
    assert x.dtype == plain.dtype, f"dtype {x.dtype}, expected {plain.dtype}"
    assert torch.isfinite(x).all(), "not finite"
    # Or the bound would not be one.
    for name, other in (("plain", plain), ("exact", exact), ("terms", terms)):
        assert other is None or torch.isfinite(other).all(), f"{name} is not finite"
    # The floor is for results on which plain torch happens to round to nothing: a result is rounded once to its dtype,
    # and its terms are summed in float32 at least, so that cancelling costs digits of that precision only.
    size = exact.double().norm()
    cancelled = 1.0 if terms is None else (terms.double().norm() / size.clamp_min(1e-300)).item()
    summed = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    bound = 2 * relative_error(plain, exact) + torch.finfo(x.dtype).eps / 2 + 4 * summed * max(cancelled, 1.0)
    bound, error = max(bound, stated), relative_error(x, exact)
    assert error <= bound, f"relative error {error:.3g}, bound {bound:.3g}"
