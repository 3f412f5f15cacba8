"""The benchmark of the training step: an honest peer, a gate before any number, a record after it."""

import itertools
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from bench.reporting.suite import UNFINISHED
from bench.step import bench_step
from bench.step.contenders import BASE, Built, Contender, loss_network, reference
from bench.step.gate import check_same_step
from bench.step.plain_step import CatPaddedConv2d, PlainLossNetwork, PlainStep, replicating_conv
from fastvae.errors import FastvaeError

LAYERS = ("relu1_1", "relu2_1")


@pytest.fixture(autouse=True)
def _processor(processor):
    processor()


@pytest.fixture
def batch():
    return torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8), torch.randn(4, 100)


def run(tmp_path, *flags) -> tuple[int, dict]:
    out = tmp_path / "step.json"
    status = bench_step.main(["--tiny", "--out", str(out), *flags])
    return status, json.loads(out.read_text())


# In float32, as in most of these tests, a right step has the right direction at any size.
SMALL = ("--batch", "2", "--width", "2", "--rounds", "1")


def test_the_plain_step_is_the_same_step(batch):
    check_same_step(loss_network(LAYERS), *batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_no_gradient(batch, value):
    pixels, noise = batch
    with pytest.raises(AssertionError, match="gradient of"):
        check_same_step(loss_network(LAYERS), pixels, noise * value)


def test_the_plain_loss_network_is_the_same_network():
    ours = loss_network(("relu1_1", "relu3_1"))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    for plain, expected in zip(PlainLossNetwork(ours)(images), ours(images), strict=True):
        torch.testing.assert_close(plain, expected)


def test_padding_by_cat_is_the_same_padding():
    torch.manual_seed(1)
    by_cat = CatPaddedConv2d(3, 5, bias=True)
    torch.manual_seed(1)
    replicating = replicating_conv(3, 5, bias=True)
    x = torch.randn(2, 3, 4, 7)
    torch.testing.assert_close(by_cat(x), replicating(x))


@pytest.mark.gpu
@pytest.mark.parametrize("tiny", [True, False])
def test_the_same_step_on_the_gpu(tiny):
    chosen = bench_step.settings(tiny=tiny)
    pixels = torch.randint(0, 256, (4, chosen.image_size, chosen.image_size, 3), dtype=torch.uint8, device="cuda")
    check_same_step(loss_network(chosen.layers), pixels, torch.randn(4, 100, device="cuda"))


@pytest.mark.parametrize("instructions", [[], ["avx512_bf16"]], ids=["fp32", "bf16"])
def test_a_run_leaves_a_record(tmp_path, capsys, processor, instructions):
    processor(*instructions)
    status, record = run(tmp_path, "--batch", "3", "--rounds", "2")
    assert status == 0 and record["settings"]["batch"] == 3
    names = [row["contender"] for row in record["rows"]]
    assert names[0] == BASE and any(name.startswith("fastvae") for name in names)
    for row in record["rows"]:
        low, high = row["quartiles_s"]
        assert len(row["samples_s"]) == 2 and 0 < low <= row["median_s"] <= high
        assert row["images_per_s"] == pytest.approx(3 / row["median_s"], abs=0.006)  # two decimals
    assert "x best peer" in capsys.readouterr().out


@pytest.mark.gpu
def test_the_captured_step_is_timed_on_a_gpu(tmp_path):
    status, record = run(tmp_path)
    rows = {row["contender"]: row for row in record["rows"]}
    (captured,) = (row for name, row in rows.items() if name in ("fastvae bf16", "fastvae fp32"))
    assert status == 0 and captured["memory_mib"] >= 0


def test_another_step_is_not_timed(tmp_path, monkeypatch, capsys):
    right = PlainStep.vae_loss

    def wrong(self, *arguments):
        loss, kl, rec = right(self, *arguments)
        return loss + kl, kl, rec

    monkeypatch.setattr(PlainStep, "vae_loss", wrong)
    status, record = run(tmp_path, *SMALL)
    assert status == 1 and record["rows"] == []
    assert "WRONG, not timed: the gradient of encoder" in capsys.readouterr().out


def with_contender(monkeypatch, name: str, build) -> None:
    right = bench_step.contenders
    monkeypatch.setattr(bench_step, "contenders", lambda *a: {**right(*a), name: Contender("a fake", "fp32", build)})


def timed(record) -> set[str]:
    return {row["contender"] for row in record["rows"]}


def small_settings():
    return replace(bench_step.settings(tiny=True), batch=2, width=2)


def losses_of(kl: float):
    return lambda pixels, noise: Built(lambda: None, lambda: {"kl": kl, "rec": 1.0})


def test_ours_with_other_losses_is_not_timed(tmp_path, monkeypatch):
    with_contender(monkeypatch, "fastvae fake", losses_of(1e3))
    status, record = run(tmp_path, *SMALL)
    assert status == 1 and timed(record) == {BASE, "plain eager fp32 channels_last", "fastvae eager fp32"}
    assert any("WRONG, not timed: fastvae fake: kl of the first step is 1000" in note for note in record["notes"])


@pytest.mark.parametrize("name", ["encoder", "decoder", "critic"])
def test_ours_with_a_network_that_does_not_move_is_not_timed(name, tmp_path, monkeypatch):
    def build(pixels, noise):
        built = reference(small_settings()).build(pixels, noise)
        still = built.networks[name]

        def call():
            before = {key: value.clone() for key, value in still.state_dict().items()}
            built.call()
            still.load_state_dict(before)
            if name == "critic":
                for p in still.parameters():
                    p.data.clamp_(-0.01, 0.01)

        return built._replace(call=call)

    with_contender(monkeypatch, "fastvae fake", build)
    status, record = run(tmp_path, *SMALL)
    assert status == 1 and timed(record) == {BASE, "plain eager fp32 channels_last", "fastvae eager fp32"}
    assert any(
        f"WRONG, not timed: fastvae fake: the first step moves the {name} elsewhere" in note for note in record["notes"]
    )


def test_a_time_limit_while_a_peer_compiles_costs_the_others_nothing(tmp_path, monkeypatch):
    def stopped(pixels, noise):
        raise SystemExit(143)

    with_contender(monkeypatch, "plain nan", losses_of(float("nan")))
    with_contender(monkeypatch, "plain compiled", stopped)
    monkeypatch.setattr(bench_step, "LAST_S", 0.0)
    with pytest.raises(SystemExit, match="143"):
        run(tmp_path, *SMALL[:4], "--rounds", "5")
    record = json.loads((tmp_path / "step.json").read_text())
    names = {row["contender"] for row in record["rows"]}
    assert BASE in names and any(name.startswith("fastvae") for name in names)
    assert all(len(row["samples_s"]) == 1 for row in record["rows"])
    assert "left out, since the time was over before they were ready: plain compiled" in record["notes"]


def test_a_time_limit_while_timing_leaves_the_rounds_that_are_whole(tmp_path, monkeypatch):
    def build(pixels, noise):
        built = reference(small_settings()).build(pixels, noise)
        calls = itertools.count()

        def call():
            number = next(calls)
            if torch.cuda.is_available():
                number -= 4
            if number == 1 + 3 + 2:  # the first call, those to warm up, two rounds
                raise SystemExit(143)
            built.call()

        return built._replace(call=call)

    with_contender(monkeypatch, "fastvae fake", build)
    with pytest.raises(SystemExit, match="143"):
        run(tmp_path, *SMALL[:4], "--rounds", "5")
    record = json.loads((tmp_path / "step.json").read_text())
    assert len(record["rows"]) >= 3 and {len(row["samples_s"]) for row in record["rows"]} == {2}


def test_what_is_left_of_contenders_is_shown(tmp_path, monkeypatch, capsys):
    right = bench_step.contenders
    monkeypatch.setattr(
        bench_step, "contenders", lambda *a: {name: c for name, c in right(*a).items() if name.startswith("fastvae")}
    )
    status, record = run(tmp_path, *SMALL)
    assert status == 0 and record["rows"] and "nan x best peer" in capsys.readouterr().out


def test_peers_that_fail_or_are_wrong_are_left_out_and_noted(tmp_path, monkeypatch):
    def fails(pixels, noise):
        raise RuntimeError("no such thing here")

    with_contender(monkeypatch, "plain broken", fails)
    with_contender(monkeypatch, "plain nan", losses_of(float("nan")))
    status, record = run(tmp_path, *SMALL)
    assert status == 0
    assert not {"plain broken", "plain nan"} & {row["contender"] for row in record["rows"]}
    notes = "\n".join(record["notes"])
    assert "left out: plain broken: RuntimeError" in notes and "left out: plain nan is wrong: kl" in notes


def fake(call=lambda: None) -> Contender:
    """A contender that computes nothing; only its calls matter."""
    return Contender("a fake", "fp32", lambda pixels, noise: Built(call, lambda: {"kl": 1.0, "rec": 1.0}))


def only(monkeypatch, contenders: dict[str, Contender]) -> None:
    """These are all contenders, and nothing else is computed."""
    monkeypatch.setattr(bench_step, "contenders", lambda *_: contenders)
    monkeypatch.setattr(bench_step, "check_same_step", lambda *_: None)
    monkeypatch.setattr(bench_step, "_right_step", lambda *_: ({}, {"kl": 1.0, "rec": 1.0}))


def failing_at(number: int, error: Exception) -> Contender:
    """Its call of that number fails; with 0 it cannot be built."""
    calls = itertools.count(1)

    def call():
        if next(calls) == number:
            raise error

    def build(pixels, noise):
        if number == 0:
            raise error
        return fake(call).build(pixels, noise)

    return Contender("a fake", "fp32", build)


# Of its calls the first compiles and captures, three warm up (and on a GPU four more are for its memory), then it is
# timed.
FIRST_TIMED = 1 + 3 + 4 * torch.cuda.is_available() + 1


@pytest.mark.parametrize(
    "number, samples",
    [(0, None), (1, None), (2, None), (FIRST_TIMED, 3), (FIRST_TIMED + 1, 1)],
    ids=["built", "captured", "warmed up", "timed first", "timed again"],
)
@pytest.mark.parametrize(
    "error",
    [
        FastvaeError("step 1 failed while it was being captured"),
        AssertionError("expected size 1==1, stride 3==1"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_of_ours_that_fails_costs_the_others_nothing(tmp_path, monkeypatch, number, samples, error):
    only(monkeypatch, {BASE: fake(), "fastvae broken": failing_at(number, error), "fastvae": fake()})
    status, record = run(tmp_path, "--rounds", "3")
    taken = {row["contender"]: len(row["samples_s"]) for row in record["rows"]}
    assert taken == {BASE: 3, "fastvae": 3} | ({"fastvae broken": samples} if samples else {})
    assert status == 1 and f"FAILED: fastvae broken: {type(error).__name__}: {error}" in record["notes"]


def test_an_error_that_all_calls_after_it_have_leaves_what_was_measured(tmp_path, monkeypatch):
    """As CUDA's errors of memory access do, which make the process useless."""
    broken = False

    def call(breaks: bool) -> None:
        nonlocal broken
        broken |= breaks
        if broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    breaks = {BASE: False, "fastvae a": False, "fastvae b": True, "plain c": False}
    only(monkeypatch, {name: fake(partial(call, first)) for name, first in breaks.items()})
    status, record = run(tmp_path)
    assert status == 1 and timed(record) == {BASE, "fastvae a"}
    assert all(len(row["samples_s"]) == 3 for row in record["rows"])
    notes = record["notes"]
    assert "fastvae a is timed by its calls to warm up, not in turns: it had none" in notes
    assert "FAILED: fastvae b: RuntimeError: CUDA error: an illegal memory access was encountered" in notes
    assert "left out: plain c: RuntimeError: CUDA error: an illegal memory access was encountered" in notes


def test_without_the_step_that_ours_are_compared_with_the_peers_are_timed(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no such thing here")

    only(monkeypatch, {BASE: fake(), "fastvae": fake()})
    monkeypatch.setattr(bench_step, "_right_step", fails)
    status, record = run(tmp_path)
    assert status == 1 and timed(record) == {BASE}
    assert any("which all of ours are compared with: RuntimeError: no such thing here" in n for n in record["notes"])


def of_losses(kl: float) -> Contender:
    return Contender("a fake", "fp32", losses_of(kl))


@pytest.mark.parametrize("reference_runs", [True, False])
def test_without_the_base_the_losses_are_compared_with_our_eager_step_s(tmp_path, monkeypatch, reference_runs):
    def fails(*_):
        raise RuntimeError("no such thing here")

    peers = {"plain right": of_losses(1.0), "plain wrong": of_losses(7.0)}
    only(monkeypatch, {BASE: failing_at(1, RuntimeError("no room")), **peers, "fastvae wrong": of_losses(7.0)})
    if not reference_runs:
        monkeypatch.setattr(bench_step, "_right_step", fails)
    status, record = run(tmp_path)
    notes = "\n".join(record["notes"])
    assert status == 1 and f"left out: {BASE}: RuntimeError: no room" in notes
    if reference_runs:
        assert timed(record) == {"plain right"} and "left out: plain wrong is wrong: kl" in notes
        assert "WRONG, not timed: fastvae wrong: kl" in notes
    else:
        assert timed(record) == set() and "left out: plain right: RuntimeError: neither" in notes


def test_a_crash_leaves_what_was_kept_between_rounds(tmp_path, monkeypatch):
    """What lies on the disk at each call is what a crash in it leaves."""
    seen = []

    def call() -> None:
        if (path := tmp_path / "step.json").exists():
            kept = json.loads(path.read_text())
            assert UNFINISHED in kept["notes"]
            seen.append({row["contender"]: len(row["samples_s"]) for row in kept["rows"]})

    only(monkeypatch, {BASE: fake(), "fastvae": fake(call)})
    monkeypatch.setattr(bench_step, "_KEEP_S", 0.0)
    status, record = run(tmp_path, "--rounds", "4")
    assert status == 0 and UNFINISHED not in record["notes"] and len(record["rows"][0]["samples_s"]) == 4
    assert seen[0] == {BASE: 3}  # the base's calls to warm up, while another compiles
    assert seen[-4:] == [{BASE: n, "fastvae": n} for n in (3, 1, 2, 3)]


@pytest.mark.parametrize(("flag", "value"), [("--batch", "1"), ("--rounds", "0"), ("--width", "-3")])
def test_sizes_that_make_no_sense(flag, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench_step.main([flag, value])
    assert f"{flag} must be" in capsys.readouterr().err
