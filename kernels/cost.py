"""What a call must do at the least, for comparing measured times with a machine's ceilings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Work of one call.

    Attributes:
        flops: floating-point operations, a multiply-add counting as two.
        bytes: each tensor read once and each result written once.
    """

    flops: int
    bytes: int
