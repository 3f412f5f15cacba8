"""Whose a run's folder is: one writer at a time, names of our own form, readers that nothing is pruned under."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fastvae
from fastvae.cli import main
from fastvae.data.packed import PackedWriter
from fastvae.errors import FastvaeError
from fastvae.files import locks
from fastvae.kernels import conv_relu_forms
from fastvae.lossnet.standin import stand_in
from fastvae.train import checkpoint_files
from fastvae.train.run_folder import RunFolder
from tests.conftest import blobs

HOLDER = """
import pathlib, sys
from fastvae.train.run_folder import RunFolder
RunFolder(pathlib.Path(sys.argv[1])).hold()
print("held", flush=True)
sys.stdin.read()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def step_of_newest(run: Path) -> int:
    return checkpoint_files.step_of(checkpoint_files.latest(run))


def test_only_names_of_the_exact_form_are_checkpoints(tmp_path):
    own = ["step-00000002", "step-00000010", "step-100000000"]
    others = ["step-00000004-best", "step-best", "step-4", "step-000000004", "step-0000000x", "best-step-00000004"]
    for name in (*own, *others):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000011").touch()
    assert [path.name for path in checkpoint_files.checkpoints(tmp_path)] == own
    checkpoint_files.prune(tmp_path, keep=1)
    assert names(tmp_path) == {*others, "step-00000011", "step-100000000"}


def test_environment_json_says_which_form_each_conv_relu_got(tmp_path, monkeypatch):
    run, path = RunFolder(tmp_path / "run"), tmp_path / "run" / "environment.json"
    run.create({})
    try:
        before = path.read_bytes()
        run.note_choices()
        assert path.read_bytes() == before  # a CPU chooses nothing
        monkeypatch.setattr(conv_relu_forms, "choices", lambda: [{"x": [1, 8, 4, 4], "chosen": "fused"}])
        known = json.loads(before) | {"conv_relu": [{"x": [1, 8, 4, 4], "chosen": "fused"}]}
        run.note_choices()
        assert json.loads(path.read_text()) == known
        for damaged in ("", "[1]", "{"):
            path.write_text(damaged)
            run.note_choices()
            assert json.loads(path.read_text()) == {k: v for k, v in known.items() if k != "command"}
    finally:
        run.close()


def test_environment_json_has_every_command_of_a_run(train, trained):
    assert train("--resume", str(trained), "--steps", "6") == 0
    assert train("--resume", str(trained), "--steps", "8") == 0
    kept = json.loads((trained / "environment.json").read_text())
    assert kept["command"] == sys.argv
    assert kept["resumed"] == [{"step": 4, "command": sys.argv}, {"step": 6, "command": sys.argv}]


def test_a_person_s_copy_is_neither_pruned_nor_resumed_from(train, trained):
    run = trained
    for name in ("step-00000004-best", "step-best", "later-step-00000009"):
        shutil.copytree(run / "checkpoints" / "step-00000002", run / "checkpoints" / name)
    assert train("--resume", str(run), "--steps", "8") == 0
    assert names(run / "checkpoints") == {
        "step-00000004-best", "step-best", "later-step-00000009", "step-00000006", "step-00000008",
    }  # fmt: skip


def test_a_renamed_checkpoint_that_a_run_goes_on_from_is_its_newest(train, trained):
    """Whatever ends the run before its next one: what `--resume RUN` goes on from is where it was."""
    shutil.move(trained / "checkpoints" / "step-00000004", trained / "checkpoints" / "kept")
    assert train("--resume", str(trained / "checkpoints" / "kept"), "--steps", "4") == 0  # which are done
    assert names(trained / "checkpoints") == {"kept", "step-00000002", "step-00000004"}
    assert checkpoint_files.latest(trained).name == "step-00000004"


def test_a_run_that_is_being_trained_has_no_second_writer(train, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("--steps", "2") == 0
    before = (run / "stats.jsonl").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert train("--resume", str(run), "--steps", "4") == 1
        assert f"is being written by process {holder.pid} on" in capsys.readouterr().err
        holder.send_signal(signal.SIGKILL)
    assert (run / "stats.jsonl").read_bytes() == before
    assert train("--resume", str(run), "--steps", "4") == 0


def test_a_new_run_is_held_too_and_given_up_at_its_end(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.create({})
    with pytest.raises(FastvaeError, match="is being written by process"):
        second.hold()
    first.close()
    second.hold()
    second.close()


def test_a_checkpoint_that_is_read_is_not_pruned(train, tmp_path):
    run = tmp_path / "run"
    assert train("--steps", "2", "--checkpoint-every", "1") == 0
    with locks.reading(run / "checkpoints" / "step-00000001"):
        assert train("--resume", str(run), "--steps", "4", "--keep-checkpoints", "1") == 0
    assert names(run / "checkpoints") == {"step-00000001", "step-00000004"}


def test_loading_goes_to_the_next_checkpoint_when_one_is_pruned_before_it_is_read(train, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert train("--steps", "2", "--checkpoint-every", "1") == 0
    older, newest = checkpoint_files.checkpoints(run / "checkpoints")
    found = iter([older, newest])

    def latest(run: Path) -> Path:
        if (checkpoint := next(found)) == older:
            checkpoint_files.remove(older)
        return checkpoint

    monkeypatch.setattr(checkpoint_files, "latest", latest)
    assert fastvae.load(run).run.step == 2


def test_what_a_killed_process_left_is_tidied_and_nothing_else(train, tmp_path):
    run = tmp_path / "run"
    assert train("--steps", "2", "--checkpoint-every", "1") == 0
    left = [".step-00000003.part", ".step-00000001.old"]
    kept = [".step-3.part", ".step-00000003.part.mine", "notes"]
    for name in (*left, *kept):
        (run / "checkpoints" / name).mkdir()
    (run / ".fastvae-0123456789abcdef.part.json").touch()
    assert train("--resume", str(run), "--steps", "3") == 0
    assert names(run / "checkpoints") == {*kept, "step-00000002", "step-00000003"}
    assert names(run) == {
        ".lock", "config.json", "environment.json", "stats.jsonl", "pictures", "checkpoints", "tensorboard",
    }  # fmt: skip


def test_a_checkpoint_is_taken_as_a_checkpoint(train, tmp_path):
    run = tmp_path / "run"
    assert train("--steps", "4", "--checkpoint-every", "1", "--keep-checkpoints", "9") == 0
    assert train("--resume", str(run / "checkpoints"), "--steps", "5") == 0
    assert step_of_newest(run) == 5
    assert train("--resume", str(run / "checkpoints" / "step-00000002" / "state.json"), "--steps", "3") == 0
    assert [path.name for path in checkpoint_files.checkpoints(run / "checkpoints")] == [
        "step-00000001", "step-00000002", "step-00000003",
    ]  # fmt: skip
    assert {f"later-step-0000000{step}" for step in (3, 4, 5)} <= names(run / "checkpoints")
    steps = [json.loads(line)["step"] for line in (run / "stats.jsonl").read_text().splitlines()]
    assert max(steps) == 3


def test_a_run_without_a_checkpoint_begins_again_with_its_settings(train, tmp_path):
    run, straight = tmp_path / "run", tmp_path / "straight"
    assert train("--steps", "3", "--out", str(straight)) == 0
    assert train("--steps", "3") == 0
    shutil.rmtree(run / "checkpoints")
    assert main(["train", "--resume", str(run)]) == 0
    first, second = (fastvae.load(folder).state_dict() for folder in (run, straight))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (run / "stats.jsonl").read_text().count('"step": 1,') == 1


def test_data_that_moved_is_found_or_named_anew(train, packed, tmp_path, monkeypatch, capsys):
    (tmp_path / "a").mkdir()
    shutil.copy(packed.path, tmp_path / "a" / "set.fvae")
    monkeypatch.chdir(tmp_path / "a")
    assert train("--steps", "2", "--data", "set.fvae") == 0
    run = str(tmp_path / "run")
    monkeypatch.chdir("/")
    assert train("--resume", run, "--steps", "3") == 0
    (tmp_path / "a").rename(tmp_path / "b")
    assert train("--resume", run, "--steps", "4") == 1
    assert "a/set.fvae" in capsys.readouterr().err
    assert train("--resume", run, "--steps", "4", "--data", str(tmp_path / "b" / "set.fvae")) == 0
    assert train("--resume", run, "--steps", "5") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"] == str(tmp_path / "b" / "set.fvae")


def test_other_images_under_the_same_name_are_refused_unless_asked_for(train, packed, tmp_path, capsys):
    data, run = tmp_path / "set.fvae", tmp_path / "run"
    shutil.copy(packed.path, data)
    assert train("--steps", "2", "--data", str(data)) == 0
    with PackedWriter(data, image_size=32, overwrite=True) as writer:
        writer.append(blobs(60, 32, seed=1), splits=[0] * 52 + [1] * 8)
    before = (run / "stats.jsonl").read_bytes(), (run / "config.json").read_bytes()
    assert train("--resume", str(run), "--steps", "4") == 1
    said = capsys.readouterr().err
    assert (
        "other images (52 training images)" in said
        and "trained on 40 training images" in said
        and "--allow-other-data" in said
    )
    assert before == ((run / "stats.jsonl").read_bytes(), (run / "config.json").read_bytes())
    assert train("--resume", str(run), "--steps", "4", "--allow-other-data") == 0


def test_weights_of_the_loss_network_that_moved(train, tmp_path, capsys):
    weights, run = tmp_path / "vgg.safetensors", tmp_path / "run"
    network = stand_in(("relu1_1", "relu2_1"))
    tensors = {k: v for k, v in network.state_dict().items() if k.startswith("features.")}
    save_file(tensors, weights)
    assert train("--steps", "2", "--vgg", str(weights)) == 0
    weights.rename(tmp_path / "moved.safetensors")
    assert train("--resume", str(run), "--steps", "3") == 1
    assert train("--resume", str(run), "--steps", "3", "--vgg", str(tmp_path / "moved.safetensors")) == 0
    assert train("--resume", str(run), "--steps", "4") == 0
    for others in ("random", str(weights)):
        save_file({k: v + 1 for k, v in tensors.items()}, weights)
        assert train("--resume", str(run), "--steps", "5", "--vgg", others) == 1
        assert "was trained with other loss network weights" in capsys.readouterr().err


def test_more_epochs_at_resume_where_steps_had_been_given(train, tmp_path, capsys):
    assert train("--steps", "2") == 0
    assert train("--resume", str(tmp_path / "run"), "--epochs", "1") == 0
    assert "done after 5 steps" in capsys.readouterr().out


def test_a_folder_whose_name_is_not_utf8(train, tmp_path):
    run = tmp_path / os.fsdecode(b"lauf-\xfc")
    assert train("--steps", "2", "--checkpoint-every", "1", "--out", str(run)) == 0
    assert train("--resume", str(run), "--steps", "3") == 0
    assert fastvae.load(run).run.step == 3


def test_what_was_logged_of_lost_steps_is_kept(train, tmp_path, caplog):
    run = tmp_path / "run"
    assert train("--steps", "3") == 0
    before = (run / "stats.jsonl").read_bytes()
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    assert train("--resume", str(run), "--steps", "2") == 0
    assert (run / "stats-before-1.jsonl").read_bytes() == before
    assert "has no checkpoint and starts again" in caplog.text


@pytest.mark.parametrize("name", ["checkpoints", "pictures", "stats.jsonl"])
@pytest.mark.parametrize("other", ["nowhere", "pipe"])
def test_what_lies_in_the_place_of_a_run_s_own_is_refused_before_anything_is_written(
    train, trained, tmp_path, capsys, name, other
):
    run = trained
    (run / name).rename(tmp_path / "kept")
    if other == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(tmp_path / "nowhere")
    before = {path.name: path.lstat().st_mtime_ns for path in run.iterdir()}
    assert train("--resume", str(run), "--steps", "6") == 1
    assert f"or a valid link to one at {run / name}" in capsys.readouterr().err
    assert {path.name: path.lstat().st_mtime_ns for path in run.iterdir()} == before


def test_a_copy_of_a_checkpoint_under_another_name_can_be_gone_on_from(train, trained):
    run = trained
    shutil.copytree(run / "checkpoints" / "step-00000002", run / "checkpoints" / "the good one")
    assert train("--resume", str(run / "checkpoints" / "the good one"), "--steps", "3") == 0
    assert {"the good one", "step-00000002", "step-00000003", "later-step-00000004"} == names(run / "checkpoints")


def test_a_checkpoint_of_nan_is_not_gone_on_from(train, trained, capsys):
    run = trained
    file = checkpoint_files.latest(run) / "model.safetensors"
    tensors, metadata = load_file(file), json.dumps(checkpoint_files.read_metadata(file))
    tensors["encoder.mean.weight"][0, 0] = float("nan")
    save_file(tensors, file, {"fastvae": metadata})
    assert train("--resume", str(run), "--steps", "6") == 1
    said = capsys.readouterr().err
    assert "encoder.mean.weight holds NaN" in said and "step-00000002` continues from it" in said


def test_a_link_that_is_named_as_a_checkpoint_is_not_removed(train, tmp_path):
    run = tmp_path / "run"
    assert train("--steps", "2", "--checkpoint-every", "1") == 0
    (run / "checkpoints" / "step-00000001").rename(tmp_path / "kept")
    (run / "checkpoints" / "step-00000001").symlink_to(tmp_path / "kept")
    assert train("--resume", str(run), "--steps", "5", "--keep-checkpoints", "1") == 0
    assert (tmp_path / "kept" / "state.json").exists()
    assert names(run / "checkpoints") == {"step-00000001", "step-00000005"}


def test_a_full_disk_costs_tensorboard_alone(train, tmp_path, monkeypatch, caplog):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter

    def failing(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "add_scalar", failing)
    assert train("--steps", "2") == 0
    assert "continuing without" in caplog.text
