"""The minimum work of a call, for comparing measured times with a machine's limits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Work of one call.

    Attributes:
        flops: floating-point operations, a multiply-add counting as two.
        bytes: with each tensor read once and each result written once.
    """

    flops: int
    bytes: int
