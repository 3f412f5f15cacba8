"""However fastvae is got at, all of it is found: by wheel, editable install, or as a bare checkout."""

import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import fastvae
from fastvae.version import __version__

ROOT = Path(__file__).parents[1]
FOUND = [str(ROOT / "fastvae" / name) for name in ("__init__.py", "kernels/__init__.py", "vae.py")]
BUILT = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a wheel is made from: building writes into the tree."""
    folder = tmp_path_factory.mktemp("checkout") / "fastvae"
    folder.mkdir()
    for name in BUILT:
        shutil.copy(ROOT / name, folder)
    for name in ("fastvae", "kernels"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def built(checkout: Path, kind: str, folder: Path) -> zipfile.ZipFile:
    """A wheel of the checkout, as pip builds it: kind "wheel" or "editable"."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    return zipfile.ZipFile(folder / said.stdout.strip().splitlines()[-1])


def sources() -> set[str]:
    """Every file of the package, the link to kernels followed, as a wheel names it."""
    files = [path.relative_to(ROOT) for path in (ROOT / "fastvae").rglob("*") if path.is_file()]
    files += [Path("fastvae") / path.relative_to(ROOT) for path in (ROOT / "kernels").rglob("*") if path.is_file()]
    return {path.as_posix() for path in files if "__pycache__" not in path.parts}


def test_a_wheel_holds_every_file(checkout, tmp_path):
    with built(checkout, "wheel", tmp_path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == sources()
    assert {"fastvae/kernels/tiles.json", "fastvae/kernels/feature_loss.py", "fastvae/vae.py"} <= names


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for top in ("fastvae", "kernels", "bench", "tests", "tools") for path in files(ROOT / top)}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def files(folder: Path) -> list[Path]:
    """The modules below a folder."""
    return [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]


def test_an_editable_install_is_a_line_in_a_pth_file(checkout, tmp_path):
    """And no import hook, which comes after a *folder* called fastvae beside somebody's script."""
    with built(checkout, "editable", tmp_path) as wheel:
        (name,) = (name for name in wheel.namelist() if ".dist-info/" not in name)
        assert name.endswith(".pth")
        assert wheel.read(name).decode().split() == [str(checkout)]


def test_a_script_beside_a_clone_gets_the_package(tmp_path):
    """A clone is a folder called fastvae without __init__.py, and stands before what is installed on sys.path."""
    (tmp_path / "work" / "fastvae").mkdir(parents=True)
    for name in ("fastvae", "kernels"):
        (tmp_path / "work" / "fastvae" / name).symlink_to(ROOT / name)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "__editable__.fastvae.pth").write_text(f"{ROOT}\n")
    script = tmp_path / "work" / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import site, sys
            from importlib.util import find_spec
            site.addsitedir({str(tmp_path / "site")!r})
            assert sys.path[0] == {str(script.parent)!r} and sys.path[-1] == {str(ROOT)!r}
            print(find_spec("fastvae").origin, find_spec("fastvae.kernels").origin, find_spec("fastvae.vae").origin)
        """)
    )
    # -S: without this interpreter's own installation of fastvae. What is found is not imported, which takes seconds.
    assert python("-S", str(script)).split() == FOUND


def test_a_bare_checkout_is_enough(tmp_path):
    code = "from importlib.util import find_spec; print(*(find_spec(n).origin for n in {names!r}))"
    code = code.format(names=("fastvae", "fastvae.kernels", "fastvae.vae"))
    assert python("-S", "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT)).split() == FOUND


def test_importing_it_is_instant():
    code = "import sys, fastvae; print(fastvae.__version__, *({'torch', 'numpy', 'PIL', 'tyro'} & sys.modules.keys()))"
    assert python("-c", code, PYTHONPATH=str(ROOT)).split() == [__version__]


def test_using_a_model_does_not_wait_for_what_it_does_not_need(tmp_path):
    """torch._dynamo and torch._inductor take longer to import than all of torch; the rest adds up to half a second."""
    fastvae.VAE(16, width=2, latent=2).eval().save_pretrained(tmp_path / "saved")
    code = f"""
        import sys

        import torch

        import fastvae
        import fastvae.inference.native.vae  # which a machine without a C++ compiler does not run

        vae, images = fastvae.load({str(tmp_path / "saved")!r}), torch.zeros(1, 3, 16, 16)
        vae.accelerate(torch.bfloat16).reconstruct(images)
        with torch.no_grad():
            vae.sample(1), vae.encode(images), vae.reconstruct(images)
        compiler = {{"torch._dynamo", "torch._inductor", "sympy", "triton"}}
        ours = {{f"fastvae.{{name}}" for name in ("data", "lossnet", "objectives", "recipes", "train.trainer")}}
        print(*sorted((compiler | ours | {{"PIL", "tyro"}}) & sys.modules.keys()))
    """
    assert python("-c", textwrap.dedent(code), PYTHONPATH=str(ROOT)).split() == []


def test_training_from_python_needs_no_tyro(packed, tmp_path):
    code = f"""
        import sys
        sys.modules["tyro"] = None  # an import of it fails from now on

        from dataclasses import replace
        from pathlib import Path

        import fastvae.vae
        from fastvae.config import ModelConfig, TrainConfig
        from fastvae.recipes import RECIPES
        from fastvae.train.build import resolve
        from fastvae.train.trainer import Trainer

        config, _ = resolve(
            replace(
                RECIPES["celeba64-plain"](),
                data={str(packed.path)!r},
                model=ModelConfig(image_size=32, width=2, latent=4),
                train=TrainConfig(steps=2, batch_size=8, precision="fp32", device="cpu"),
            )
        )
        assert Trainer(config, Path("run")).fit() is None
        print(fastvae.load("run").latent)
    """
    assert python("-c", textwrap.dedent(code), cwd=tmp_path, PYTHONPATH=str(ROOT)).split()[-1] == "4"
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()


def python(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """What a fresh interpreter prints, with nothing of this checkout on its path unless the environment says so."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    result = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout
