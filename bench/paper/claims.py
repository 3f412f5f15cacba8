"""What training and reconstruction share in the record: their rows, and where a verdict says that it comes from."""

from collections.abc import Sequence

from bench.measuring.clock import quantiles
from bench.measuring.row import Row
from bench.paper.projection import PAPERS_GPU
from bench.reporting import record

# The contender that is projected to the paper's GPU: what that GPU can run, too.
ATEN = "fp32 on ATen"


def row(work: str, how: str, image_s: Sequence[float]) -> Row:
    """A row of seconds an image: of a window of steps divided by its images, or of a reconstruction."""
    (p99,) = quantiles(image_s, (0.99,))
    return Row.from_seconds(how, image_s, "us", job={"work": work}, details={"p99_us": round(1e6 * p99, 3)})


def where(factor: float | None) -> str:
    """Of a verdict: measured here, or with a factor projected."""
    if factor is None:
        return f"measured on {record.machine()}"
    return f"projected to a {PAPERS_GPU.name} from {record.machine()} in {ATEN}"
