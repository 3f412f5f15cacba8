"""Command lines for records."""

from collections.abc import Sequence


def without_out(arguments: Sequence[str]) -> list[str]:
    """Arguments without `--out PLACE`: records are committed, and places are this machine's own."""
    before = ["", *arguments]
    return [
        word
        for previous, word in zip(before, arguments, strict=False)
        if previous != "--out" and word != "--out" and not word.startswith("--out=")
    ]
