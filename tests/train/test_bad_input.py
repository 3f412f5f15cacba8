"""What people do wrong on the command line: one line that says what to do, an exit code, and nothing lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fastvae.cli import main
from fastvae.train.checkpoint_files import checkpoints, latest, resume_command


@pytest.fixture(autouse=True)
def _processor(processor):
    processor()


@pytest.fixture
def fails(capsys):
    """fails(code, words, arguments): the command ends with that code, and its last line holds all words."""

    def check(code: int, words: list[str], *arguments: str) -> None:
        assert main(list(arguments)) == code
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        line = errors.splitlines()[-1]
        assert all(word in line for word in words), line

    return check


def edit_config(run: Path, section: str, field: str, value) -> None:
    path = run / "config.json"
    config = json.loads(path.read_text())
    config[section][field] = value
    path.write_text(json.dumps(config))


def test_unknown_names(fails):
    fails(2, ["unknown command 'trian'", "'train'"], "trian", "demo")
    fails(2, ["unknown recipe 'celba64'", "'celeba64'"], "train", "celba64")
    fails(2, ["expected a recipe", "demo"], "train")


def test_unknown_weights(fails, packed, tmp_path):
    arguments = ["--data", str(packed.path), "--image-size", "32", "--batch-size", "8", "--out", str(tmp_path / "run")]
    fails(2, ["--vgg", "random"], "train", "celeba64", "--vgg", "randm", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--batch-size", "1", "from 2 to"),
        ("--lr", "-1", "more than 0"),
        ("--lr", "nan", "more than 0"),
        ("--lr-decay", "1.5", "at most 1"),
        ("--image-size", "44", "40 and 48 are the nearest"),
        ("--width", "0", "from 1 to"),
        ("--width", "100000", "from 1 to 1024"),
        ("--epochs", "0", "from 1 to"),
        ("--seed", "-1", "from 0 to"),
        ("--seed", str(2**64), "from 0 to"),
        ("--steps", str(10**18), "from 1 to"),
        ("--log-every", str(10**12), "from 1 to"),
        ("--latent", str(10**12), "from 1 to"),
        ("--image-size", str(2**40), "from 8 to 1024"),
        ("--minutes", "inf", "more than 0"),
        ("--beta", "-0.5", "0 or more"),
        ("--clip", "0", "more than 0"),
        ("--label-scale", "-10", "0 or more"),
        ("--layers", "relu9_9", "layers must be"),
    ],
)
def test_flags_out_of_range(fails, flag, value, words):
    fails(
        2,
        [flag.removeprefix("--").replace("layers", "one or more"), words, value],
        "train",
        "demo",
        flag,
        value,
        "--dry-run",
    )


def test_a_misspelt_flag_suggests_the_right_one(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "demo", "--batchsize", "3"])
    assert stopped.value.code == 2
    assert "--batch-size" in capsys.readouterr().err


def test_data_that_is_not_there(fails, tmp_path):
    out = ["--out", str(tmp_path / "run")]
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(1, ["nothing.fvae", "does not exist"], "train", "celeba64", "--data", str(tmp_path / "nothing.fvae"), *out)
    fails(1, [str(empty), "is empty"], "train", "celeba64", "--data", str(empty), *out)
    (empty / "readme.txt").write_text("no images here")
    fails(1, [str(empty), "contains no pictures"], "train", "celeba64", "--data", str(empty), *out)
    fails(1, ["does not exist"], "prepare", str(tmp_path / "nothing"), str(tmp_path / "out.fvae"))
    assert not (tmp_path / "run").exists()


def test_data_of_another_size_or_too_small(fails, train, tmp_path, packed):
    out = ["--out", str(tmp_path / "run"), "--vgg", "random"]
    fails(2, ["32x32", "--image-size 32"], "train", "celeba64", "--data", str(packed.path), *out)
    arguments = ["train", "celeba64", "--data", str(packed.path), "--image-size", "32", *out]
    fails(1, ["training images; there are 40", "--batch-size"], *arguments)


def test_a_folder_in_use_is_not_touched(fails, packed, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious.txt").write_text("mine")
    flags = ["--vgg", "random", "--layers", "relu1_1", "--image-size", "32", "--width", "2", "--batch-size", "8"]
    fails(2, ["exists already", "--resume"], "train", "celeba64", "--data", str(packed.path), "--out", str(run), *flags)
    assert [p.name for p in run.iterdir()] == ["precious.txt"]


def test_what_is_not_a_run(fails, trained, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "face.jpg").touch()
    for command in (["train", "--resume"], ["generate"]):
        fails(1, ["is neither the folder of a run", "check the path"], *command, str(photos))
        fails(1, ["there is no run folder"], *command, str(tmp_path / "nothing"))
        fails(1, ["is a file"], *command, str(photos / "face.jpg"))
    fails(2, ["a path is empty"], "train", "--resume", "")
    shutil.rmtree(trained / "checkpoints")
    fails(1, ["holds no checkpoint", f"fastvae train --resume {trained}"], "generate", str(trained))
    fails(1, ["there is no run folder"], "reconstruct", str(tmp_path / "nothing"), "face.jpg")


def test_a_command_to_copy_is_quoted():
    assert resume_command(Path("my faces/run")) == "fastvae train --resume 'my faces/run'"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_checkpoint_names_the_one_before(fails, trained, name):
    file = latest(trained) / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    words = [str(file), "missing or damaged", f"fastvae train --resume {trained}/checkpoints/step-00000002"]
    fails(1, words, "train", "--resume", str(trained), "--steps", "6")
    if name == "model.safetensors":
        fails(1, words, "generate", str(trained))
    shutil.rmtree(latest(trained))
    assert main(["train", "--resume", str(trained), "--steps", "6"]) == 0


def test_a_checkpoint_of_another_architecture(fails, trained):
    edit_config(trained, "model", "width", 4)
    fails(1, ["another architecture", "step-00000004"], "train", "--resume", str(trained))


def test_a_config_that_was_edited(fails, trained):
    edit_config(trained, "objective", "critic_optimizer", "rmsprop")
    fails(1, ["other objective options"], "train", "--resume", str(trained), "--steps", "6")


def test_a_run_from_a_gpu_machine(fails, trained, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    edit_config(trained, "train", "device", "cuda")
    fails(2, ["--device cpu"], "train", "--resume", str(trained), "--steps", "6")
    assert main(["train", "--resume", str(trained), "--steps", "6", "--device", "cpu"]) == 0


def test_a_safetensors_file_of_somebody_else(fails, tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    fails(1, ["was not written by fastvae"], "generate", str(tmp_path / "other.safetensors"))


def test_a_checkpoint_of_another_version(fails, trained):
    from safetensors.torch import load_file

    file = latest(trained) / "model.safetensors"
    save_file(load_file(file), file, {"fastvae": json.dumps({"format": 99, "config": {}})})
    fails(1, ["format 99", "reads checkpoint format 1"], "generate", str(trained))


def test_resuming_as_another_run_is_refused(fails, trained):
    fails(2, ["keeps its model", "--steps"], "train", "--resume", str(trained), "--beta", "9")
    fails(2, ["--out cannot be combined with --resume"], "train", "--resume", str(trained), "--out", "elsewhere")
    fails(2, ["is a run of celeba64"], "train", "demo", "--resume", str(trained))


def test_a_full_disk_loses_nothing(fails, train, small_disk):
    run = small_disk / "run"
    assert train("--steps", "2", "--out", str(run), "--pictures-every", "0") == 0
    free = shutil.disk_usage(small_disk).free
    one_checkpoint = sum(f.stat().st_size for f in latest(run).iterdir())
    (small_disk / "filler").write_bytes(b"\0" * (free - one_checkpoint // 2))
    before = {f: f.read_bytes() for f in latest(run).iterdir()}
    fails(1, ["could not", "space", "--resume"], "train", "--resume", str(run), "--steps", "4")
    assert {f: f.read_bytes() for f in latest(run).iterdir()} == before
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000002"]
    (small_disk / "filler").unlink()
    assert main(["train", "--resume", str(run), "--steps", "4"]) == 0
    assert [c.name for c in checkpoints(run / "checkpoints")] == ["step-00000002", "step-00000004"]


def test_pictures_that_are_none(fails, trained, tmp_path, capsys):
    files = {name: tmp_path / f"{name}.jpg" for name in ("whole", "cut", "text", "dot", "grey", "cmyk")}
    Image.effect_noise((50, 60), 60).convert("RGB").save(files["whole"])
    files["cut"].write_bytes(files["whole"].read_bytes()[:400])
    files["text"].write_text("I am not a picture")
    Image.new("RGB", (1, 1)).save(files["dot"])
    Image.effect_noise((50, 60), 60).save(files["grey"])
    Image.effect_noise((50, 60), 60).convert("CMYK").save(files["cmyk"])
    out = tmp_path / "out.png"
    broken = [str(files[name]) for name in ("cut", "text", "dot")]
    fails(1, ["none of the 3 files"], "reconstruct", str(trained), *broken, "--out", str(out))
    assert not out.exists()
    assert main(["reconstruct", str(trained), *map(str, files.values()), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "3 images" in said.out
    assert all(f"skipped {name}" in said.err for name in broken)
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 34 + 2, 2 * 34 + 2)


def test_a_folder_with_broken_pictures_trains_on_the_rest(fails, tmp_path, caplog):
    folder, out = tmp_path / "faces", tmp_path / "faces.fvae"
    folder.mkdir()
    for i in range(120):
        Image.effect_noise((32, 32), 60).convert("RGB").save(folder / f"{i:03}.png")
    (folder / "bad.jpg").write_text("not a picture")
    assert main(["prepare", str(folder), str(out), "--image-size", "32"]) == 0
    assert "bad.jpg" in caplog.text
    flags = ["--image-size", "32", "--width", "2", "--batch-size", "8", "--steps", "1"]
    flags += ["--precision", "fp32", "--device", "cpu"]
    assert main(["train", "celeba64-plain", "--data", str(folder), "--out", str(tmp_path / "run"), *flags]) == 0
    for i in range(5):
        (folder / f"worse{i}.jpg").write_text("not a picture")
    fails(1, ["broken", "1 %", "bad.jpg"], "prepare", str(folder), str(tmp_path / "again.fvae"))
    assert not Path(tmp_path / "again.fvae").exists()


def test_a_picture_that_cannot_be_written(fails, trained, tmp_path):
    (tmp_path / "file").write_text("")
    fails(2, ["file is not a folder"], "generate", str(trained), "--out", str(tmp_path / "file" / "x.png"))
