"""What fastvae's own contenders are called, in every suite and record."""

# Or so and something more: "fastvae compiled bf16".
OURS = "fastvae"


def is_ours(contender: str) -> bool:
    """Whether a contender of this name is one of fastvae's."""
    return contender.startswith(OURS)
