"""The tuner, on the CPU: kernels interpreted, times invented."""

import json
import signal
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.errors import OutOfResources

from bench.kernels.cases import (
    ConvCase,
    FeatureCase,
    NormCase,
    UpdateCase,
    conv_cases,
    recipe_cases,
    update_cases,
)
from bench.kernels.resources import compile_for, variant_of
from fastvae.kernels import dispatch, feature_loss_triton, packed_weight, tiles
from tests.kernels.interpreter import interpreted
from tools.tune import __main__ as tune
from tools.tune import gain
from tools.tune.problems import OPS, Trial, gather
from tools.tune.search import MARGIN, Machine

H100 = (9, 0)
CONV = ConvCase(batch=1, in_channels=4, out_channels=8, size=4, upsample=1, bias=True)
FEATURES = FeatureCase(batch=2, shapes=((3, 16, 16), (8, 4, 4)))
NORM = NormCase(batch=4, channels=8, size=4, batches=2, residual=False)
UPDATES = (
    UpdateCase("critic", ((1000,), (3, 8)), "adam", 0.01),
    UpdateCase("VAE", ((900,),), "adam", None),
    UpdateCase("critic by RMSprop", ((1000,), (3, 8)), "rmsprop", 0.01),
)
CONV_KEY = "replicate_conv2d.{} u1 c4 o8 4x4 b1 float32 sm_90"
LOSS_KEY = "feature_loss n2048 float32 sm_90"
FOREIGN = {"feature_loss n2048 bfloat16 sm_90": {"BLOCK": 512, "num_warps": 4}, LOSS_KEY.replace("90", "80"): None}


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch):
    """The interpreter's cost is by program; two kernels have one for every 256 weights on a GPU."""
    monkeypatch.setitem(packed_weight.WEIGHT_TILE, "BLOCK", 8192)


def tuned(tmp_path, time_of, ops=OPS, before=None):
    """Tunes the tiny cases with times by label; returns the file's entries, what was said, and how much was refused."""

    def clock(contenders, rounds):
        return {name: [time_of(name)] * rounds for name in contenders}

    out, said = tmp_path / "tiles.json", []
    if before is not None:
        out.write_text(json.dumps(before))
    with interpreted(H100):
        problems = gather((CONV,), (FEATURES,), (NORM,), UPDATES, [torch.float32], ops, H100)
        machine = Machine("cpu", H100, clock, lambda calls: None)
        refused = tune.tune(problems, machine, out, say=said.append)
    return json.loads(out.read_text()), said, refused


def test_fastest_tiles_are_written_under_the_keys_that_the_ops_look_up(tmp_path):
    times = {"ATen": 3.0, "num_stages=5": 1.0, "BLOCK=256 num_warps=2": 1.0}

    def time_of(label):
        return next((time for words, time in times.items() if words in label), 2.0)

    found, _, refused = tuned(tmp_path, time_of, before=FOREIGN)
    small = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16, "num_warps": 2}
    elementwise = {"BLOCK": 256, "num_warps": 2}
    assert refused == 0
    assert found == FOREIGN | {
        CONV_KEY.format("forward"): {**small, "BLOCK_M": 64, "num_warps": 4, "num_stages": 5},
        CONV_KEY.format("data_gradient"): {**small, "BLOCK_M": 64, "num_warps": 4, "num_stages": 5},
        CONV_KEY.format("weight_gradient"): {**small, "num_stages": 5},
        LOSS_KEY: elementwise,
        "adam_clip_ n1024 float32 sm_90": elementwise,
        "rmsprop_clip_ n1024 float32 sm_90": elementwise,
    }
    text = (tmp_path / "tiles.json").read_text()
    keys = [line.partition(":")[0] for line in text.splitlines()[1:-1]]
    assert keys == sorted(keys) and len(keys) == 8


def test_an_entry_is_null_where_aten_is_faster(tmp_path):
    ops = ("replicate_conv2d.data_gradient", "feature_loss")
    found, _, _ = tuned(tmp_path, lambda label: 0.5 if label == "ATen" else 1.0, ops=ops)
    assert found == {CONV_KEY.format("data_gradient"): None, LOSS_KEY: None}


def test_nothing_is_written_for_less_than_the_noise(tmp_path):
    """And what an earlier run wrote goes."""

    def time_of(label):
        return {"ATen": 1.0 - 0.9 * MARGIN, "BLOCK=256 num_warps=2": 1.0 - 0.9 * MARGIN}.get(label, 1.0)

    before = FOREIGN | {LOSS_KEY: {"BLOCK": 128, "num_warps": 4}}
    found, said, _ = tuned(tmp_path, time_of, ops=("feature_loss",), before=before)
    assert found == FOREIGN
    assert said[-1].endswith("-> the default")


@pytest.mark.parametrize("fault", ["wrong", "unwritten", "too large", "not compiled"])
def test_a_tile_that_fails_is_never_chosen(tmp_path, monkeypatch, fault):
    forward = feature_loss_triton.forward

    def faulty(features, targets, weights, tile):
        loss = forward(features, targets, weights, tile)
        if tile["BLOCK"] == 256:
            if fault == "too large":
                raise OutOfResources(300_000, 232_448, "shared memory")
            if fault == "not compiled":
                raise RuntimeError("PassManager::run failed\nand much more")
            return torch.empty_like(loss) if fault == "unwritten" else loss * 1.001
        return loss

    monkeypatch.setattr(feature_loss_triton, "forward", faulty)
    found, said, refused = tuned(tmp_path, lambda label: 1.0 if "BLOCK=256" in label else 2.0, ops=("feature_loss",))
    assert found == {}
    warnings = [words for words in said if words.startswith("REFUSED")]
    assert len(warnings) == refused == (0 if fault == "too large" else 1)
    assert all("BLOCK=256" in words and LOSS_KEY in words and "\n" not in words for words in warnings)


def test_a_default_that_fails_gives_way(tmp_path, monkeypatch):
    forward = feature_loss_triton.forward

    def faulty(*arguments):
        loss = forward(*arguments)
        return loss if arguments[-1]["BLOCK"] == 256 else loss * 2

    monkeypatch.setattr(feature_loss_triton, "forward", faulty)
    found, _, _ = tuned(tmp_path, lambda label: 2.0 if label == "ATen" else 1.0, ops=("feature_loss",))
    assert found[LOSS_KEY]["BLOCK"] == 256
    monkeypatch.setattr(feature_loss_triton, "forward", lambda *arguments: faulty(*arguments[:-1], {"BLOCK": 512}))
    found, _, _ = tuned(tmp_path, lambda label: 2.0 if label == "ATen" else 1.0, ops=("feature_loss",))
    assert found[LOSS_KEY] is None


def test_an_interruption_loses_only_the_entry_in_progress(tmp_path):
    def time_of(label):
        if "BLOCK_M" in label:
            raise KeyboardInterrupt
        return 1.0 if label == "BLOCK=256 num_warps=2" else 2.0

    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, time_of, ops=("adam_clip_", "replicate_conv2d.forward"), before=FOREIGN)
    found = json.loads((tmp_path / "tiles.json").read_text())
    assert found == FOREIGN | {"adam_clip_ n1024 float32 sm_90": {"BLOCK": 256, "num_warps": 2}}


def test_no_entry_is_begun_after_the_budget(tmp_path):
    said = []
    with interpreted(H100):
        problems = gather((CONV,), (), (), (), [torch.float32], OPS, H100)
    machine = Machine("cpu", H100, lambda contenders, rounds: pytest.fail("timed"), lambda calls: None)
    assert tune.tune(problems, machine, tmp_path / "tiles.json", budget_s=-1, say=said.append) == 0
    assert said == [f"out of time: 3 of 3 entries left, from {problems[0].name} on"]


def test_problems_share_entries_and_come_most_expensive_first():
    cases = conv_cases(("celeba64",)), (), (), update_cases(("celeba64", "celeba128"))
    with dispatch.force("triton", capability=H100):
        problems = gather(*cases, [torch.bfloat16, torch.float64], OPS, H100)
        assert not [p for p in gather(*cases, [torch.bfloat16], OPS, (7, 5)) if p.key.startswith("replicate")]
    shared = next(p for p in problems if p.key == "adam_clip_ n8388608 float32 sm_90")
    assert [call.case.name for call in shared.calls] == [
        "VAE, 64x64 width 32",
        "critic, 128x128 width 32",
        "VAE, 128x128 width 32",
    ]
    expenses = [p.expense for p in problems]
    assert expenses == sorted(expenses, reverse=True)
    assert len({p.key for p in problems}) == len(problems)
    assert not [p for p in problems if "float64" in p.key]


def test_every_candidate_of_the_paper_s_recipe_can_be_started():
    """And a few of them are compiled."""
    recipe, variants = ("celeba64",), {}

    def record(kernel, grid, args, options):
        assert all(0 < size < limit for size, limit in zip(grid, (2**31, 2**16, 2**16), strict=False))
        assert all(v & (v - 1) == 0 for k, v in options.items() if k.startswith("BLOCK") or k == "num_warps")
        variants.setdefault(variant_of(kernel, args, options))

    trial = Trial()
    with dispatch.force("triton", capability=H100, launch=record), trial.in_use(), torch.no_grad():
        for problem in gather(*recipe_cases(recipe), [torch.bfloat16], OPS, H100):
            call, operands = problem.calls[0], problem.calls[0].operands("cpu")
            first = call.first_tiles(problem.default)
            made = [*first, *call.next_tiles([problem.default, *first], H100)]
            assert 5 < len(made) < 80, problem.name
            for tile in made:
                assert tile.keys() == problem.default.keys()
                trial[problem.key] = tile
                call.run(*operands)
    assert 300 < len(variants) < 1200
    for variant in list(variants)[20::120]:
        compile_for(variant, H100)


def test_what_is_compiled_ahead_is_not_compiled_again(monkeypatch, tmp_path):
    kernel = feature_loss_triton.feature_loss_kernel
    target = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setattr(driver, "_active", target)
    monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder))
    monkeypatch.setattr(dispatch, "_capability_of", lambda index: H100)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    features = [torch.ones(1024)]
    calls = [
        lambda w=w: feature_loss_triton.forward(features, features, [1.0], {"BLOCK": 256, "num_warps": w})
        for w in (2, 4)
    ]
    tune.compile_ahead(calls)
    compiled = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")}
    assert len(compiled) == 2
    with dispatch.force(
        "triton", launch=lambda kernel, grid, args, options: kernel.warmup(*args, grid=grid, **options)
    ):
        for call in calls:
            call()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")} == compiled


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--op", "replicate_conv"], "'replicate_conv2d'"),
        (["--recipe", "celeba"], "'celeba64"),
        (["--dtype", "float8"], "'float"),
    ],
)
def test_unknown_names_suggest_the_nearest(arguments, hint, capsys):
    with pytest.raises(SystemExit) as error:
        tune.main(arguments)
    assert error.value.code == 2
    assert f"did you mean {hint}" in capsys.readouterr().err


def test_without_a_gpu_it_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "compute capability 7.0" in line and "no CUDA device" in line


@pytest.mark.gpu
def test_on_the_gpu(tmp_path):
    out = tmp_path / "tiles.json"
    assert tune.main(["--recipe", "cifar10", "--op", "feature_loss", "--out", str(out)]) == 0
    assert all(key.startswith("feature_loss") for key in json.loads(out.read_text()))


def test_writing_the_shipped_file_changes_nothing(tmp_path):
    copy = tmp_path / "tiles.json"
    copy.write_text(tiles.PATH.read_text())
    tune.write(copy, "none of its keys", {})
    assert copy.read_text() == tiles.PATH.read_text()


def test_the_gain_is_of_the_calls_whose_entry_differs(monkeypatch):
    tile, used = {"BLOCK": 256, "num_warps": 2}, []
    choose = tiles.choose
    monkeypatch.setattr(tiles, "choose", lambda *arguments: used.append(choose(*arguments)) or used[-1])

    def clock(contenders):
        for call in contenders.values():
            call()
        return {"before": [3.0, 2.0, 2.0], "after": [1.0, 1.0, 1.0]}

    with interpreted(H100):
        problems = gather((CONV,), (FEATURES,), (NORM,), UPDATES, [torch.float32], OPS, H100)
        used.clear()
        (row,) = gain.gains(problems, FOREIGN, FOREIGN | {LOSS_KEY: tile}, "cpu", clock)
        assert used[-1] == tile != used[0]
        assert not list(gain.gains(problems, FOREIGN, FOREIGN, "cpu", clock))
        assert not list(gain.gains(problems, FOREIGN, {LOSS_KEY: tile}, "cpu", lambda calls: {"after": [1.0]}))
    assert row["problem"].startswith(LOSS_KEY) and (row["before_us"], row["after_us"], row["faster"]) == (2e6, 1e6, 2.0)


def test_a_time_limit_leaves_the_gains_until_then(monkeypatch, tmp_path):
    def stopped(*_):
        yield {"problem": "a call", "before_us": 3.0, "after_us": 2.0, "faster": 1.5}
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: H100)
    monkeypatch.setattr(gain.record, "machine", lambda: "a machine")
    monkeypatch.setattr(gain, "gather", lambda *_: [])
    monkeypatch.setattr(gain, "gains", stopped)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    paths = {name: tmp_path / name for name in ("before", "after", "out")}
    for name in ("before", "after"):
        paths[name].write_text("{}")
    default = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nothing was done against SIGTERM"))
    try:
        with pytest.raises(SystemExit, match="143"):
            gain.main([f"--{name}={path}" for name, path in paths.items()])
    finally:
        signal.signal(signal.SIGTERM, default)
    left = json.loads(paths["out"].read_text())
    assert [row["problem"] for row in left["rows"]] == ["a call"] and not left["complete"]
    assert left["total_us"] == {"before": 3.0, "after": 2.0}


def test_the_gain_needs_a_gpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gain.main([f"--{name}={tmp_path / name}" for name in ("before", "after", "out")]) == 2
    assert "needs a GPU" in capsys.readouterr().err
