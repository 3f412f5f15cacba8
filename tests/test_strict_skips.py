"""A continuous build that skips what it should run fails, and says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PASSES = "def test_a(): pass\n"
GPU = "import pytest\n@pytest.mark.parametrize('i', range(3))\ndef test_b(i): pytest.skip('needs a CUDA device')\n"
MARKED = "import pytest\n@pytest.mark.skipif(True, reason='no compiler')\ndef test_c(): pass\n"
FILE = "import pytest\npytest.importorskip('a_library_that_is_not_there')\ndef test_d(): pass\n"
FIXTURE = "import pytest\n@pytest.fixture\ndef disk(): pytest.skip('no disk')\n" + "".join(
    f"def test_{name}(disk): pass\n" for name in "ef"
)
FAILS = "def test_g(): assert False\n"
OURS = "import pytest\ndef test_h(): pytest.skip('FASTVAE_VGG19 does not name a file of the original weights')\n"


def run(folder: Path, *files: str, flags: tuple[str, ...] = ("--strict-skips",)) -> tuple[int, str]:
    for i, text in enumerate(files):
        (folder / f"test_{i}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.strict_skips", f"--rootdir={folder}", *flags, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_what_nobody_can_bring_may_be_skipped(tmp_path):
    status, said = run(tmp_path, PASSES, GPU, OURS)
    assert status == 0 and "\n    3 needs a CUDA device\n    1 FASTVAE_VGG19 does not" in said
    assert "NOT ALLOWED" not in said and "FAILED" not in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (MARKED, "    1 NOT ALLOWED: no compiler"),
        (FILE, "    1 NOT ALLOWED: could not import 'a_library_that_is_not_there'"),
        (FIXTURE, "    2 NOT ALLOWED: no disk"),
    ],
    ids=["test", "file", "fixture"],
)
def test_anything_else_fails_the_run(tmp_path, text, line):
    status, said = run(tmp_path, PASSES, GPU, text)
    assert status == 1 and line in said and "FAILED: --strict-skips: " in said


def test_skips_in_workers_count_once(tmp_path):
    pytest.importorskip("xdist")
    status, said = run(tmp_path, PASSES, GPU, MARKED, FILE, FIXTURE, flags=("--strict-skips", "-n", "2"))
    told = said.partition("skips by reason")[2].splitlines()[1:6]
    assert status == 1 and told[:2] == ["    3 needs a CUDA device", "    2 NOT ALLOWED: no disk"]
    assert set(told[2:4]) == {
        "    1 NOT ALLOWED: no compiler",
        "    1 NOT ALLOWED: could not import 'a_library_that_is_not_there': No module named"
        " 'a_library_that_is_not_there'",
    }
    assert told[4] == "FAILED: --strict-skips: 4 skipped that should have run: see above"


def test_what_nobody_can_bring_may_be_skipped_in_workers(tmp_path):
    pytest.importorskip("xdist")
    status, said = run(tmp_path, PASSES, GPU, OURS, flags=("--strict-skips", "-n", "2"))
    assert status == 0 and "\n    3 needs a CUDA device\n    1 FASTVAE_VGG19 does not" in said


def test_nothing_but_skipped_files_fails_the_run_too(tmp_path):
    assert run(tmp_path, FILE)[0] != 0


def test_without_the_flag_it_is_silent(tmp_path):
    status, said = run(tmp_path, PASSES, MARKED, FILE, flags=())
    assert status == 0 and "by reason" not in said


def test_a_test_that_fails_still_fails(tmp_path):
    assert run(tmp_path, FAILS, GPU)[0] == 1


@pytest.fixture
def build(tmp_path):
    """build(**programs) -> status and output of .ci/run where only these programs and a few others are found."""

    def run_with(**programs: str) -> tuple[int, str]:
        found = tmp_path / "bin"
        (tmp_path / "clone" / ".ci").mkdir(parents=True)
        (tmp_path / "clone" / "tools").mkdir()
        found.mkdir()
        shutil.copy(ROOT / ".ci" / "run", tmp_path / "clone" / ".ci")
        for name in ("bash", "dirname", "tail", "mktemp", "rm", "rmdir"):
            (found / name).symlink_to(shutil.which(name))
        scripts = {found / name.replace("_", "-"): script for name, script in programs.items()}
        for path, script in (scripts | {tmp_path / "clone" / "tools" / "dev": 'echo "dev $*"'}).items():
            path.write_text(f"#!{shutil.which('bash')}\n{script}\n")
            path.chmod(0o755)
        done = subprocess.run(
            [tmp_path / "clone" / ".ci" / "run"], env={**os.environ, "PATH": str(found)}, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run_with


MOUNTS = {"mount": "exit 0", "umount": "exit 0"}


def test_a_build_with_a_browser_tests_strictly(build):
    status, said = build(chromium="", chromedriver="", **MOUNTS)
    assert status == 0 and said.splitlines()[:1] == ["dev lint"] and "dev test --strict-skips --slow" in said


@pytest.mark.parametrize(
    "programs", [{}, {"apt_get": "echo 'no route to host' >&2; exit 100"}], ids=["no_apt", "offline"]
)
def test_a_build_without_a_browser_fails_before_it_tests(build, programs):
    status, said = build(**programs, **MOUNTS)
    assert status == 1 and "FAILED: Chromium and chromedriver could not be installed" in said and "dev test" not in said
    assert "no route to host" in said or not programs


def test_a_build_that_may_not_mount_gets_a_name_space_where_it_may(build):
    denied = {"chromium": "", "chromedriver": "", "mount": "exit 32", "umount": "exit 32"}
    status, said = build(**denied, unshare='while [ "${1#--}" != "$1" ]; do shift; done; echo unshared; exec "$@"')
    assert status == 0 and "unshared\ndev test --strict-skips" in said
