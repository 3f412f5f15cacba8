"""Charts drawn with matplotlib, an optional dependency."""

from pathlib import Path
from types import ModuleType
from typing import Any

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import atomic_file


def pyplot() -> ModuleType:
    """`matplotlib.pyplot`, set to draw into files.

    Raises:
        FastvaeError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise FastvaeError("no chart: matplotlib is not installed; pip install -e '.[eval]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save_chart(figure: Any, path: Path, **options: Any) -> None:
    """Writes a matplotlib figure as a PNG file and closes it; `options` are those of `savefig`.

    Raises:
        FastvaeError: it cannot be written.
    """
    try:
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png", **options)
    finally:
        pyplot().close(figure)
