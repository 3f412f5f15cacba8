"""Damaged and hostile files of runs: each is used or refused in one line, in bounded time and memory."""

import contextlib
import json
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.hub.folder import write
from fastvae.train import checkpoint, checkpoint_files
from fastvae.train.build import build, resolve
from fastvae.train.config_json import from_json, to_json
from fastvae.train.run_folder import RunFolder
from tests.mutations import mutated_bytes, mutated_json
from tests.train.conftest import SMALL

CASES = 300  # with --slow
MAX_BYTES = 2 << 30  # of address space beyond what the process has
MAX_SECONDS = 60  # for what takes milliseconds


@pytest.fixture(scope="module")
def trained(packed, tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    run = tmp_path_factory.mktemp("hostile") / "run"
    flags = ["--data", str(packed.path), "--out", str(run), *SMALL, "--steps", "2"]
    assert main(["train", "celeba64-literal", *flags]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def restore(trained) -> Callable[[Path], None]:
    """Restores the newest checkpoint of a run into a training that was built once."""
    config, _ = resolve(from_json(json.loads((trained / "config.json").read_text())))
    training = build(config)

    def restored(run: Path) -> None:
        checkpoint.restore(
            checkpoint_files.latest(run),
            config=to_json(config), objective=training.objective, updates=training.updates, noise=training.noise,
        )  # fmt: skip

    return restored


@contextlib.contextmanager
def bounded():
    """An error where something takes a minute, or gigabytes of address space."""

    def too_long(number, frame):
        raise TimeoutError(f"a damaged file takes more than {MAX_SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_BYTES, hard))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def used_or_refused(use: Callable[[], object]) -> bool:
    """Whether it was used; fails unless what it raises is one human-readable line."""
    signal.alarm(MAX_SECONDS)
    try:
        use()
        return True
    except FastvaeError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500, str(error)
        return False
    finally:
        signal.alarm(0)


def summarised(run: Path, out: Path) -> None:
    """Loads a run with what is known of it, and writes the card of that."""
    shutil.rmtree(out, ignore_errors=True)
    vae = fastvae.load(run)
    write(vae, out)
    assert "nan" not in (out / "README.md").read_text().lower().replace("finan", "")
    fastvae.load(out)


def test_weights(run, restore, cases):
    file = checkpoint_files.latest(run) / "model.safetensors"
    good, numbers = file.read_bytes(), random.Random(1)
    with bounded():
        for _ in range(cases(CASES)):
            file.write_bytes(mutated_bytes(good, numbers))
            used_or_refused(lambda: fastvae.load(run))
            used_or_refused(lambda: restore(run))


def test_headers_of_weights(run, restore, cases):
    """The names, shapes, dtypes and places that a file claims for its tensors."""
    folder, numbers = checkpoint_files.latest(run), random.Random(2)
    for name in ("model.safetensors", "optimizer.safetensors"):
        good = (folder / name).read_bytes()
        size = int.from_bytes(good[:8], "little")
        header = json.loads(good[8 : 8 + size])
        with bounded():
            for _ in range(cases(CASES)):
                text = json.dumps(mutated_json(header, numbers)).encode()
                (folder / name).write_bytes(len(text).to_bytes(8, "little") + text + good[8 + size :])
                used_or_refused(lambda: restore(run))
                used_or_refused(lambda: fastvae.load(run))
        (folder / name).write_bytes(good)
    restore(run)


def test_metadata_of_weights(run, restore, tmp_path, cases):
    file, numbers = checkpoint_files.latest(run) / "model.safetensors", random.Random(3)
    # From bytes: what load_file returns is the file itself, which is about to be overwritten.
    tensors, good = load(file.read_bytes()), checkpoint_files.read_metadata(file)
    loaded = 0
    with bounded():
        for _ in range(cases(CASES)):
            text = json.dumps(mutated_json(good, numbers))
            file.write_bytes(save(tensors, {"fastvae": text}))
            loaded += used_or_refused(lambda: summarised(run, tmp_path / "saved"))
            used_or_refused(lambda: restore(run))
    assert loaded > cases(CASES) / 10, "what does not matter is passed over"


def test_weights_of_another_kind(run, restore):
    file = checkpoint_files.latest(run) / "model.safetensors"
    tensors, text = load(file.read_bytes()), json.dumps(checkpoint_files.read_metadata(file))
    name = "encoder.mean.weight"
    for other in (
        tensors[name].to(torch.complex64), tensors[name].to(torch.int64), tensors[name].bool(),
        tensors[name].to(torch.float8_e4m3fn), tensors[name][:-1], tensors[name][None], torch.zeros(0),
    ):  # fmt: skip
        file.write_bytes(save({**tensors, name: other.contiguous()}, {"fastvae": text}))
        assert not used_or_refused(lambda: fastvae.load(run))
        assert not used_or_refused(lambda: restore(run))
    file.write_bytes(save({**tensors, name: tensors[name].half()}, {"fastvae": text}))
    assert fastvae.load(run).encoder.mean.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", ["moments of another shape", "half a state", "a step that is a vector", "no noise"])
def test_states_of_optimisers_that_do_not_fit(run, restore, kind):
    file = checkpoint_files.latest(run) / "optimizer.safetensors"
    tensors = load(file.read_bytes())
    first = next(name for name in tensors if name.endswith(".exp_avg"))
    step = first.replace("exp_avg", "step")
    if kind == "moments of another shape":
        tensors[first] = torch.zeros(1)  # which would be broadcast
    elif kind == "half a state":
        del tensors[first]
    elif kind == "a step that is a vector":
        tensors[step] = torch.zeros(5)
    else:
        del tensors["noise"]
    file.write_bytes(save(tensors))
    assert not used_or_refused(lambda: restore(run))


def test_optimisers(run, restore, cases):
    file = checkpoint_files.latest(run) / "optimizer.safetensors"
    good, numbers = file.read_bytes(), random.Random(4)
    with bounded():
        for _ in range(cases(CASES)):
            file.write_bytes(mutated_bytes(good, numbers))
            used_or_refused(lambda: restore(run))


def test_states(run, restore, cases):
    file, numbers = checkpoint_files.latest(run) / "state.json", random.Random(5)
    good = file.read_bytes()
    with bounded():
        for case in range(2 * cases(CASES)):
            data = mutated_bytes(good, numbers) if case % 2 else _dumped(mutated_json(json.loads(good), numbers))
            file.write_bytes(data)
            used_or_refused(lambda: restore(run))


def test_configs(run, cases):
    file, numbers = run / "config.json", random.Random(6)
    good = file.read_bytes()
    with bounded():
        for case in range(2 * cases(CASES)):
            data = mutated_bytes(good, numbers) if case % 2 else _dumped(mutated_json(json.loads(good), numbers))
            file.write_bytes(data)
            used_or_refused(lambda: from_json(RunFolder(run).read_config()))


@pytest.mark.parametrize("name", ["stats.jsonl", "environment.json"])
def test_what_is_told_of_a_run(run, tmp_path, name, cases):
    file, numbers = run / name, random.Random(7)
    good = file.read_bytes()
    with bounded():
        for case in range(cases(CASES)):
            if case % 2:
                data = mutated_bytes(good, numbers)
            else:
                lines = good.splitlines() if name == "stats.jsonl" else [good]
                data = b"\n".join(_dumped(mutated_json(json.loads(line), numbers)) for line in lines)
            file.write_bytes(data)
            assert used_or_refused(lambda: summarised(run, tmp_path / "saved")), "a run's weights need no such file"
            used_or_refused(lambda: RunFolder(run).forget_after(1))


def test_whole_resumes_of_damaged_runs(trained, tmp_path, capsys, cases):
    """Some of the same through the command line, to the end."""
    numbers = random.Random(8)
    newest = checkpoint_files.latest(trained).relative_to(trained)
    names = [
        "config.json",
        "stats.jsonl",
        *(newest / name for name in ("state.json", "model.safetensors", "optimizer.safetensors")),
    ]
    for case in range(5 * cases(4)):  # each of the five files
        run = shutil.copytree(trained, tmp_path / str(case))
        file = run / names[case % len(names)]
        file.write_bytes(mutated_bytes(file.read_bytes(), numbers))
        assert main(["train", "--resume", str(run), "--steps", "3"]) in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err


def _dumped(value) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")
