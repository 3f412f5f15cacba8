"""How a form of `conv_relu` is chosen, on the CPU: with forms that are right, wrong or refuse, and invented times."""

import logging

import pytest
import torch
import torch.nn.functional as F

from fastvae.kernels import conv_relu, conv_relu_forms, conv_relu_ref, dispatch
from fastvae.kernels.conv_relu_forms import ATEN, FUSED, ONE_MORE_PASS, WITH_ZEROS, choices
from tests.kernels.test_conv_relu import CASES, operands

TIMES = {FUSED: 1.0, WITH_ZEROS: 2.0, ONE_MORE_PASS: 3.0}


def right(x, weight, bias, padding):
    return F.conv2d(x, weight, bias, padding=padding).relu()


def refuses(*_):
    raise RuntimeError("FIND was unable to find an engine to execute this computation\nand more")


def reads_its_output(x, weight, bias, padding):
    """0 times NaN, where the memory holds NaN."""
    return right(x, weight, bias, padding) * torch.nan


@pytest.fixture
def gpu(monkeypatch):
    """Pretends a GPU with these forms and times; returns the names of the forms in the order of their calls."""

    def pretend(fused=right, with_zeros=right, one_more_pass=right, times=TIMES, has_triton=True):
        called = []

        def noting(name, form):
            return lambda *arguments: called.append(name) or form(*arguments)

        def fused_with(z, *arguments):
            assert z.count_nonzero() == 0 and z.is_contiguous(memory_format=torch.channels_last)
            return noting(WITH_ZEROS, with_zeros)(*arguments)

        monkeypatch.setattr(conv_relu_forms, "has_triton", lambda: has_triton)
        monkeypatch.setattr(conv_relu_forms, "fused", noting(FUSED, fused))
        monkeypatch.setattr(conv_relu_forms, "fused_with", fused_with)
        monkeypatch.setattr(conv_relu_forms, "one_more_pass", noting(ONE_MORE_PASS, one_more_pass))
        monkeypatch.setattr(conv_relu_forms, "_milliseconds", lambda forms, _: {name: times[name] for name in forms})
        monkeypatch.setattr(conv_relu_forms, "_choices", {})
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        return called

    with dispatch.force("cudnn", op="conv_relu"):
        yield pretend


def run(case=CASES[0], **options):
    x, weight, bias, padding = operands(case, **options)
    y = conv_relu(x, weight, bias, padding=padding)
    assert torch.allclose(y.double(), conv_relu_ref(x, weight, bias, padding), rtol=1e-4, atol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)
    return y


@pytest.mark.parametrize("fastest", list(TIMES))
def test_the_fastest_that_is_right_is_chosen_once(fastest, gpu, caplog):
    called = gpu(times=TIMES | {fastest: 0.5})
    run()
    assert called == [name for name in TIMES for _ in range(2)] + [fastest]  # each twice, then what is used
    del called[:]
    run()
    assert called == [fastest] and not caplog.records
    (record,) = choices()
    assert record == {
        "device": "cpu",
        "dtype": "float64",
        "x": [2, 3, 6, 5],
        "weight": [4, 3, 3, 3],
        "padding": 1,
        "chosen": fastest,
        "milliseconds": TIMES | {fastest: 0.5},
        "refused": {},
    }


def test_each_kind_of_call_has_its_own_trial(gpu):
    gpu()
    for case, dtype in ((CASES[0], torch.float64), (CASES[0], torch.float32), (CASES[2], torch.float32)):
        run(case, dtype=dtype)
    assert [(c["x"], c["dtype"]) for c in choices()] == [
        ([2, 3, 6, 5], "float64"),
        ([2, 3, 6, 5], "float32"),
        ([2, 2, 5, 7], "float32"),
    ]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(reads_its_output, "gives a wrong result"), (refuses, "is refused (FIND was unable to find an engine")],
)
def test_what_is_wrong_or_refuses_is_never_chosen(fault, reason, gpu, caplog):
    gpu(fused=fault)
    with caplog.at_level(logging.INFO, "fastvae"):
        for case in (CASES[0], CASES[0], CASES[2]):
            run(case)
    for record in choices():
        assert record["refused"][FUSED].startswith(reason)
    assert record["chosen"] == WITH_ZEROS and set(record["milliseconds"]) == {WITH_ZEROS, ONE_MORE_PASS}
    assert [reason in line.getMessage() for line in caplog.records] == [True]


def test_without_a_fused_kernel_one_more_pass_runs(gpu):
    gpu(fused=refuses, with_zeros=refuses)
    run()
    assert choices()[0]["chosen"] == ONE_MORE_PASS


@pytest.mark.parametrize("options", [{"has_triton": False}, {"one_more_pass": refuses}], ids=["no Triton", "refuses"])
def test_torchs_two_passes_are_the_last_resort_and_said(options, gpu, caplog):
    called = gpu(fused=reads_its_output, with_zeros=refuses, **options)
    with caplog.at_level(logging.WARNING, "fastvae"):
        for _ in range(2):
            run()
    assert choices()[0]["chosen"] == ATEN and choices()[0]["milliseconds"] == {}
    assert (ONE_MORE_PASS in called) == options.get("has_triton", True)
    (line,) = caplog.records
    assert "torch's separate kernels run for torch.float64 [2, 3, 6, 5] with filters [4, 3, 3, 3]" in line.getMessage()


@pytest.mark.parametrize("has_triton", [True, False])
def test_a_capture_tries_nothing_and_remembers_nothing(has_triton, gpu, monkeypatch):
    called = gpu(has_triton=has_triton)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    run()
    assert called == [ONE_MORE_PASS] * has_triton and choices() == []


def test_zeros_are_kept_where_they_are_used_and_shared(gpu):
    gpu(times=TIMES | {WITH_ZEROS: 0.5})
    for case in (CASES[0], CASES[2], CASES[3], CASES[0]):
        run(case)
    zeros = [choice.zeros for choice in conv_relu_forms._choices.values()]
    assert [z.shape for z in zeros] == [(2, 4, 6, 5), (2, 3, 5, 7), (1, 2, 5, 5)]
    assert len({z.data_ptr() for z in zeros}) == 1
    gpu()
    run()
    assert conv_relu_forms._choices.popitem()[1].zeros is None


def test_a_call_that_is_not_finite_decides_nothing(gpu, caplog):
    called = gpu()
    x, weight, bias, padding = operands(CASES[0])
    conv_relu(x.index_fill(0, torch.tensor([0]), torch.nan), weight, bias, padding=padding)
    assert called == [ONE_MORE_PASS] and not choices() and not caplog.records
    run()
    assert choices()[0]["chosen"] == FUSED


def test_a_trial_without_enough_memory_decides_nothing(gpu):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    called = gpu(fused=too_large)
    run()
    assert called[-1] == ONE_MORE_PASS and not choices()


def test_other_engines_are_tried_anew(gpu, monkeypatch):
    gpu()
    run()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    run()
    assert len(choices()) == 2
