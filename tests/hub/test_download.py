"""The Hub, with its library's calls replaced: what would be uploaded, what is asked for, what is said when it fails."""

import sys
from pathlib import Path

import pytest
import torch

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.runs.sampler import load_samplers, load_views

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import HfApi, errors  # noqa: E402


def test_what_push_to_hub_uploads(run, monkeypatch):
    seen = {}

    def upload_folder(self, **options):
        seen.update(options, files=sorted(p.name for p in Path(options["folder_path"]).iterdir()))
        seen["card"] = (Path(options["folder_path"]) / "README.md").read_text()
        return "somewhere"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id})())
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert fastvae.load(run).push_to_hub("me/faces", license="mit", commit_message="first") == "somewhere"
    assert seen["repo_id"] == "me/faces" and seen["commit_message"] == "first"
    assert seen["files"] == ["README.md", "config.json", "model.safetensors", "reconstructions.png"]
    assert "license: mit" in seen["card"]


def not_connected() -> Exception:
    """As huggingface_hub's own client raises it: httpx's from version 1 on, which is no OSError."""
    return type("ConnectError", (Exception,), {})("refused")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: _http(errors.HfHubHTTPError), r"\(refused\): `hf auth login` logs in; `save_pretrained`"),
        (lambda: errors.LocalTokenNotFoundError("refused"), r"\(refused\): `hf auth login`"),
        (lambda: ConnectionError("refused"), r"\(refused\): `save_pretrained` keeps"),
        (not_connected, r"\(refused\): `save_pretrained` keeps"),
        (lambda: RuntimeError("refused\nat line 1"), r"\(refused\): `save"),  # as of the Rust library for transfers
        (lambda: TimeoutError(), r"\(TimeoutError\): `save"),
        (lambda: errors.HFValidationError("refused"), r"\(refused\): `save"),
        (lambda: errors.RevisionResolutionError("refused"), r"\(refused\): `save"),
    ],
)
def test_an_upload_that_fails(run, monkeypatch, make, words):
    error = make()

    def create_repo(*_, **__):
        raise error

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    with pytest.raises(FastvaeError, match=rf"me/faces could not be uploaded .*{words}") as caught:
        fastvae.load(run).push_to_hub("me/faces")
    assert "\n" not in str(caught.value)


def test_an_upload_offline_without_anything_replaced(run, monkeypatch):
    """The first thing that is asked for cannot be had: no test may reach the Hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FastvaeError, match="me/faces could not be uploaded"):
        fastvae.load(run).push_to_hub("me/faces", token="hf_x")


def test_what_cannot_be_saved_says_so_and_nothing_of_the_hub(run, monkeypatch):
    def write(*_, **__):
        raise FastvaeError("no space left")

    monkeypatch.setattr("fastvae.hub.folder.write", write)
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id})())
    with pytest.raises(FastvaeError, match=r"^no space left$"):
        fastvae.load(run).push_to_hub("me/faces")


@pytest.fixture
def on_the_hub(run, tmp_path, monkeypatch):
    """A repository you/faces; returns the options that it was asked for with."""
    fastvae.load(run).save_pretrained(tmp_path / "snapshot")
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_load_and_from_pretrained_fetch(run, on_the_hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    expected = fastvae.load(run).state_dict()
    for vae in (
        fastvae.load("you/faces"),
        fastvae.VAE.from_pretrained("you/faces"),
        fastvae.VAE.from_pretrained("you/faces", revision="v1", local_files_only=True),
    ):
        assert all(torch.equal(v, expected[k]) for k, v in vae.state_dict().items())
    assert [repo for repo, _ in on_the_hub] == ["you/faces"] * 3
    assert on_the_hub[2][1]["revision"] == "v1" and on_the_hub[2][1]["local_files_only"] is True


def test_tables_and_figures_fetch_too(run, on_the_hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert list(load_views("you/faces")) == list(load_samplers("you/faces")) == ["faces"]
    assert [repo for repo, _ in on_the_hub] == ["you/faces"] * 2


def test_a_local_path_wins(run, on_the_hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fastvae.load(run).save_pretrained("you/faces")
    fastvae.load("you/faces")
    fastvae.VAE.from_pretrained("you/faces", revision="v1")
    assert not on_the_hub


def _http(kind):
    """Without the answer of a server, whose class differs between versions."""
    error = kind.__new__(kind)
    Exception.__init__(error, "refused")
    return error


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: _http(errors.RepositoryNotFoundError), "it does not exist, or it is private"),
        (lambda: _http(errors.GatedRepoError), "accept its terms"),
        (lambda: errors.LocalEntryNotFoundError("no connection"), r"could not be reached \(no connection\)"),
        (lambda: errors.OfflineModeIsEnabled("offline"), r"could not be reached \(offline\)"),
        (lambda: ConnectionError("down"), r"could not be reached \(down\)"),
        (not_connected, r"could not be reached \(refused\)"),
        (lambda: TimeoutError(), r"could not be reached \(TimeoutError\)"),
        (lambda: RuntimeError("broken\npipe"), r"could not be reached \(broken\)"),
        (lambda: errors.HFValidationError("no"), "not a valid repository name"),
    ],
)
def test_what_goes_wrong_is_said(monkeypatch, make, words):
    def snapshot_download(*_, **__):
        raise make()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(FastvaeError, match=rf"no local path runs/none.*{words}.*fastvae train demo --out runs/none"):
        fastvae.load("runs/none")


def test_without_huggingface_hub(monkeypatch, run, capsys, tmp_path):
    vae = fastvae.load(run)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    for call in (lambda: vae.push_to_hub("me/x"), lambda: fastvae.load("me/x")):
        with pytest.raises(FastvaeError, match=r"pip install -e '\.\[hub\]'"):
            call()
    assert main(["generate", "runs/none"]) == 1
    said = capsys.readouterr().err
    assert "no local path runs/none" in said and "[hub]" in said


def test_what_cannot_be_a_repository_is_a_missing_folder():
    with pytest.raises(FastvaeError, match="no run folder /nowhere"):
        fastvae.load("/nowhere")
