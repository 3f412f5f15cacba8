"""What a machine says of itself."""

from bench.all import smoke
from fastvae.kernels import dispatch


def test_smoke_says_which_implementation_runs_each_op():
    said = {name.partition(" ")[0] for name in smoke._providers()}
    assert said == dispatch.OLDEST.keys()
