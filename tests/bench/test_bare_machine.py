"""`python -m bench all` on a machine that has PyTorch, Triton, pytest and matplotlib, and no clone of ours."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from bench.suites import SUITES
from tests.conftest import ENGINES

ROOT = Path(__file__).parents[2]
GIVEN = ("torch", "triton", "pytest", "matplotlib")


def needed_by(names: tuple[str, ...]) -> set[str]:
    """These distributions and all that they need, as far as they are installed."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            left += [re.match(r"[\w.-]+", line)[0] for line in requires if "extra ==" not in line]
    return found


def bare_python(folder: Path) -> Path:
    """The Python of a virtual environment that sees links to `GIVEN` and what they need, and nothing else."""
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    installed = Path(sysconfig.get_paths()["purelib"])
    for name in needed_by(GIVEN):
        files = importlib.metadata.files(name) or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not top.endswith(".pth") and not (packages / top).exists():
                (packages / top).symlink_to(installed / top)
    return python


def bare_checkout(folder: Path) -> Path:
    """The files of the last commit and of the working tree that git tracks or would, without .git."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            shutil.copy2(source, target)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("git"), reason="needs Linux and a clone")
def test_all_of_it_runs(tmp_path):
    python, checkout = bare_python(tmp_path / "python"), bare_checkout(tmp_path / "checkout")
    variables = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    variables |= dict.fromkeys(("HOME", "TMPDIR"), str(tmp_path))
    # C++ is as the other tests compile it, also for the tests that it runs, and Inductor need not ask three more
    # processes that import torch whether the processor has its instructions. The precision is float32 on every
    # processor.
    variables |= {name: os.environ[name] for name in ("FASTVAE_CACHE", ENGINES)} | {"TORCHINDUCTOR_VEC_ISA_OK": "0"}
    variables |= {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    unwanted = ("tyro", "tqdm", "safetensors", "xdist", "fastvae")
    asked = f"import importlib.util as u; print([n for n in {unwanted} if u.find_spec(n)])"
    found = subprocess.run([python, "-c", asked], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr
    out = tmp_path / "out"
    # At most: an idle machine needs two, a busy one four times as many.
    command = [python, "-m", "bench", "all", "--tiny", "--minutes", "60", "--out", out]
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True)
    record = json.loads((out / "all.json").read_text())
    assert set(record["suites"]) == set(SUITES) and "gate" in record, done.stdout
    for name, stage in record["stages"].items():
        for process, ended in stage.get("processes", {}).items():
            assert ended["exit_status"] in (0, None), f"{name}: {stage['last_lines'][process]}"
            if name in SUITES and ended["exit_status"] == 0:
                assert record["suites"][name]["rows"], f"{name} measured nothing"
    assert any(suite["rows"] for suite in record["suites"].values())
    with tarfile.open(out / "all.tar.gz") as archive:
        assert {f"out/{name}.json" for name in SUITES} <= set(archive.getnames())
