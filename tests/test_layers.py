"""Imports go downhill: who may import whom, read from every import statement, those inside functions included."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From low to high. A module imports what stands in lines above its own, and what belongs to the same name. Names in one
# line do not know of each other. The longest name that fits a module counts.
LAYERS = (
    "fastvae.version",
    "fastvae.errors",
    "fastvae.ranges  fastvae.memory  fastvae.no_progress_bar  fastvae.renamed  fastvae.exact_float32",
    "fastvae.progress_bar  fastvae.distributed",
    "fastvae.files",
    "fastvae.native_library",
    "fastvae.kernels",
    "fastvae.machine  fastvae.pictures  fastvae.charts",
    "fastvae.nn  fastvae.optim",
    "fastvae.data",
    "fastvae.models",
    "fastvae.inference  fastvae.lossnet",
    "fastvae.config",
    "fastvae.objectives",
    "fastvae.recipes  fastvae.train",
    "fastvae.hub",
    "fastvae.vae",
    "fastvae",
    "fastvae.runs",
    "fastvae.encode  fastvae.figures  fastvae.evaluate  fastvae.attributes  fastvae.explore  fastvae.latency  "
    "fastvae.export",
    "fastvae.cli",
    "fastvae.__main__",
    "bench.measuring",
    "bench.reporting",
    "bench.kernels  bench.step  bench.loader",
    "bench.anatomy  bench.inference",
    "bench.paper",
    "bench",
    "bench.results",
    "tools",
)
RANKS = {name: rank for rank, line in enumerate(LAYERS) for name in line.split()}
# Libraries that only some modules may import.
FOREIGN = {
    "tyro": ("fastvae.cli",),
    "kernels": (),  # a package of another project
}


def files() -> dict[str, Path]:
    """Every module of fastvae, bench and tools by its name."""
    return {
        name_of(path): path
        for folder in ("fastvae", "kernels", "bench", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if "fastvae/kernels/" not in path.as_posix()  # the link; whether rglob follows it depends on Python's version
    }


def name_of(path: Path) -> str:
    """fastvae/models/vae.py -> fastvae.models.vae; kernels/tiles.py -> fastvae.kernels.tiles."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("fastvae", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = files()


def imports(module: str, source: str) -> set[str]:
    """The modules that a module's source imports, as the deepest name of ours that each import means."""
    package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            deeper = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else base for name in deeper.values()}
    return found


def layer_of(module: str) -> str | None:
    """The longest name in LAYERS that the module is or is below."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    # The package's own file is the front door; what else lies in a package has a line of its own.
    return next((name for name in names if name in RANKS and (name != "fastvae" or module == "fastvae")), None)


def uphill(module: str, source: str) -> list[str]:
    """What of a module's imports breaks the order."""
    own = layer_of(module)
    wrong = []
    for name in sorted(imports(module, source)):
        top = name.split(".")[0]
        if top == "tests":
            wrong.append(f"{module} imports {name}: the product does not need its tests")
        elif top in ("fastvae", "bench", "tools"):
            other = layer_of(name)
            if other != own and not RANKS[other] < RANKS[own]:
                wrong.append(f"{module} imports {name}: {other} does not stand above {own} in LAYERS")
        elif top in FOREIGN and not module.startswith(FOREIGN[top] or "-"):
            wrong.append(f"{module} imports {name}, which is for {', '.join(FOREIGN[top]) or 'nobody'}")
        elif own == "fastvae.kernels" and top not in {"torch", "triton", *sys.stdlib_module_names}:
            wrong.append(f"{module} imports {name}: of other libraries the ops need torch and Triton alone")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downhill(module):
    assert layer_of(module), f"{module} has no line in LAYERS"
    assert uphill(module, MODULES[module].read_text()) == []


def test_no_circle():
    """Within a line of LAYERS, too."""
    left = {name: imports(name, path.read_text()) & MODULES.keys() - {name} for name, path in MODULES.items()}
    # What imports nothing that is left, and what nothing that is left imports, is in no circle.
    while outside := {name for name, needs in left.items() if not needs or not any(name in n for n in left.values())}:
        left = {name: needs - outside for name, needs in left.items() if name not in outside}
    assert left == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fastvae.models.vae", "def f():\n    from fastvae.hub import folder"),
        ("fastvae.models.vae", "if TYPE_CHECKING:\n    import fastvae.vae"),
        ("fastvae.data.packed", "import fastvae"),
        ("fastvae.train.trainer", "from fastvae import recipes"),
        ("fastvae.kernels.tiles", "import numpy"),
        ("fastvae.kernels.tiles", "from fastvae.models import VAE"),
        ("fastvae.config", "import tyro"),
        ("bench.step.gate", "from bench.paper import measure"),
        ("bench.step.gate", "from tests import conftest"),
        ("tools.tune.search", "from tests.kernels.interpreter import interpreted"),
        ("fastvae.optim", "from kernels import adam_clip_"),
    ],
)
def test_what_is_uphill_is_seen(module, source):
    assert len(uphill(module, source)) == 1
    assert uphill(module, "import torch") == []
