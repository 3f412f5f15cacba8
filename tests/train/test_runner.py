"""Steps one after the other: warming up leaves no trace, and between two log lines nobody waits for the device."""

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils._python_dispatch import TorchDispatchMode

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.data.loaders.packed import PackedLoader
from fastvae.errors import FastvaeError
from fastvae.objectives.plain_vae import PlainVaeOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.objectives.wgan import WganOptions
from fastvae.train.build import build
from fastvae.train.device_feed import ResidentFeed, StreamFeed
from fastvae.train.feed import HostFeed
from fastvae.train.learning_rates import LearningRates
from fastvae.train.meter import Meter
from fastvae.train.order import BatchOrder
from fastvae.train.runner import Runner, _State

BATCH = 8
ON_A_GPU = pytest.param("cuda", marks=pytest.mark.gpu)


class Training:
    """A runner and all that it changes."""

    def __init__(
        self,
        packed,
        device: str,
        *,
        capture: bool = False,
        feed=ResidentFeed,
        compiled="off",
        log_every=64,
        config=None,
        **options,
    ):
        if config is None:
            train = TrainConfig(device=device, precision="fp32", compile=compiled, batch_size=BATCH)
            objective = VaeWganOptions(vgg="random", layers=("relu1_1", "relu2_1"), **options)
            config = Config("test", objective, model=ModelConfig(image_size=32, width=2, latent=4), train=train)
        self.objective, self.updates, step, noise = build(config)
        indices = packed.indices("train")
        order = BatchOrder(len(indices), BATCH, seed=1)
        place = [] if feed is HostFeed else [torch.device(device)]
        self.rates = LearningRates(self.updates, 0.5, torch.device(device))
        self.meter = Meter(log_every, torch.device(device))
        self.runner = Runner(
            step, feed(PackedLoader(packed), indices, order, *place), noise, self.meter, capture=capture
        )

    def run(self, steps: range) -> dict[str, float]:
        for number in steps:
            self.rates.set_epoch(number // self.runner.feed.order.steps_per_epoch)
            self.runner(number)
        return self.meter.read().means

    def tensors(self) -> list[torch.Tensor]:
        networks = [t for n in self.objective.networks.values() for t in n.state_dict().values()]
        states = [u.optimizer.state.values() for u in self.updates.values()]
        return [t.detach().clone() for t in networks + [t for s in states for p in s for t in p.values()]]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("order", "feed"),
    [
        ("together", HostFeed),
        ("together", StreamFeed),
        ("critic_first", ResidentFeed),
        pytest.param("together", ResidentFeed, marks=pytest.mark.slow),
        pytest.param("critic_first", HostFeed, marks=pytest.mark.slow),
        pytest.param("critic_first", StreamFeed, marks=pytest.mark.slow),
    ],
)
def test_warming_up_leaves_no_trace(packed, feed, order):
    plain, warmed = (Training(packed, "cpu", feed=feed, order=order) for _ in range(2))
    warmed.runner.warm_up(0)
    expected, found = plain.run(range(3)), warmed.run(range(3))
    warmed.runner.warm_up(3)
    assert expected == found and same(plain.tensors(), warmed.tensors())
    assert plain.run(range(3, 7)) == warmed.run(range(3, 7)) and same(plain.tensors(), warmed.tensors())


def test_every_kind_of_step_is_made_ready_before_the_first_one(packed):
    """A kind that comes later would be compiled and captured within the time that is logged."""
    train = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=BATCH)
    config = Config("test", WganOptions(), model=ModelConfig(image_size=32, width=2, latent=4), train=train)
    plain, warmed = (Training(packed, "cpu", config=config) for _ in range(2))
    warmed.runner.warm_up(0, 2000)
    assert len(warmed.runner._warm) == 2 and len({len(passes) for passes in warmed.runner._warm}) == 2
    assert plain.run(range(3)) == warmed.run(range(3))
    assert same(*([p.detach() for n in t.objective.networks.values() for p in n.parameters()] for t in (plain, warmed)))


def test_warming_up_leaves_the_average_of_the_weights(packed):
    train = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=BATCH, ema=0.5)
    config = Config("test", PlainVaeOptions(), model=ModelConfig(image_size=32, width=2, latent=4), train=train)
    averages = []
    for warms_up in (False, True):
        training = Training(packed, "cpu", config=config)
        training.run(range(2))
        if warms_up:
            training.runner.warm_up(2)
        training.run(range(2, 4))
        averages.append(list(training.runner.step.average.tensors().values()))
    assert same(*averages) and averages[0][-1] == 4


def test_where_the_images_are_changes_nothing(packed):
    trained = [Training(packed, "cpu", feed=feed) for feed in (HostFeed, ResidentFeed, StreamFeed)]
    means = [each.run(range(7)) for each in trained]
    assert means[0] == means[1] == means[2]
    assert same(trained[0].tensors(), trained[1].tensors()) and same(trained[0].tensors(), trained[2].tensors())


def test_warming_up_needs_no_more_of_the_meter_than_a_step(packed):
    training = Training(packed, "cpu", log_every=1)
    training.run(range(1))
    for _ in range(3):  # as often as before a capture
        training.runner._warm_up(0, _State(training.runner))
    assert training.run(range(1, 2)).keys() == {"kl", "rec", "critic"}


@pytest.fixture
def uncompiled(monkeypatch):
    """torch.compile changes nothing, so that a runner believes its steps compiled."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            r"CUDA out of memory. Tried.*smaller --batch-size .* from its weights\)$",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"),
            r"does not fit into memory.*--batch-size .* from its weights\)$",
        ),
        (MemoryError(), r"\(MemoryError\); give a smaller --batch-size .*--init .* from its weights\)$"),
        (RuntimeError("\n  a compiler\nat length"), r"\(RuntimeError: a compiler\): try --compile off$"),
        (BackendCompilerFailed(len, ValueError("no such op"), None), r"ValueError: no such op\): try --compile off"),
        (AssertionError(), r"\(AssertionError\): try --compile off"),
        (AssertionError("expected size 1==1, stride 1==16"), r"stride 1==16\): try --compile off"),
    ],
    ids=["gpu_memory", "cpu_memory", "pythons_memory", "runtime", "backend", "bare_assertion", "assertion"],
)
def test_a_warm_up_that_fails_leaves_no_trace_and_names_the_step(packed, monkeypatch, uncompiled, error, words):
    plain, training = Training(packed, "cpu"), Training(packed, "cpu", compiled="on")
    assert plain.run(range(2)) == training.run(range(2))

    def fail(terms):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(training.meter, "record", fail)
        with pytest.raises(FastvaeError, match=rf"^step 3 failed while it was being compiled.*{words}") as said:
            training.runner.warm_up(2)
        assert len(str(said.value).splitlines()) == 1
    assert plain.run(range(2, 4)) == training.run(range(2, 4)) and same(plain.tensors(), training.tensors())


def test_a_later_phase_that_cannot_be_compiled_leaves_no_trace_and_names_the_step(packed, monkeypatch, uncompiled):
    train = TrainConfig(device="cpu", precision="fp32", compile="on", batch_size=BATCH)
    objective = WganOptions(warmup_generator_steps=1, warmup_critic_steps=3)
    config = Config("test", objective, model=ModelConfig(image_size=32, width=2, latent=4), train=train)
    plain, training = (Training(packed, "cpu", config=config) for _ in range(2))

    def fail(images, noise):
        raise AssertionError("another stride")

    assert plain.run(range(2)) == training.run(range(2))
    with monkeypatch.context() as patch:
        patch.setattr(training.objective, "generator_loss", fail)
        with pytest.raises(FastvaeError, match=r"^step 3 failed while it was being compiled \(AssertionError: another"):
            training.runner(2)
    assert same(plain.tensors(), training.tensors())
    training.runner.step._losses.clear()
    assert plain.run(range(2, 5)) == training.run(range(2, 5)) and same(plain.tensors(), training.tensors())


@pytest.mark.parametrize("compiled", ["on", "off"])
def test_an_error_of_a_running_step_is_not_taken_for_the_compilers(packed, monkeypatch, uncompiled, compiled):
    training = Training(packed, "cpu", compiled=compiled)
    training.run(range(1))

    def fail(terms):
        raise error

    monkeypatch.setattr(training.meter, "record", fail)
    error = torch.OutOfMemoryError("out of memory")
    with pytest.raises(FastvaeError, match=r"^step 2 failed: .*smaller --batch-size"):
        training.runner(1)
    error = ZeroDivisionError("by zero")
    expected, words = {
        "on": (FastvaeError, r"^step 2 failed \(ZeroDivisionError: by zero"),
        "off": (ZeroDivisionError, "^by zero"),
    }[compiled]
    with pytest.raises(expected, match=words):
        training.runner(1)
    error = FastvaeError("a broken picture")
    with pytest.raises(FastvaeError, match=r"^a broken picture$"):
        training.runner(1)


class Waits(TorchDispatchMode):
    """Counts what would make a host wait for a GPU: reading a number, or a shape that depends on data."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        data_dependent = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
        if data_dependent:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"critic_optimizer": "rmsprop"}, {"order": "critic_first"}])
def test_a_step_reads_no_number(packed, options):
    training = Training(packed, "cpu", **options)
    with Waits() as waits:
        training.meter._position.item()
        assert waits.found == ["aten._local_scalar_dense.default"]
        waits.found.clear()
        for number in range(6):  # two of them in the second epoch
            training.rates.set_epoch(number // training.runner.feed.order.steps_per_epoch)
            training.runner(number)
    # torch's Adam and RMSprop on the CPU read the learning rate, and Adam its counters, where nobody waits.
    of_optimizers = {"aten._local_scalar_dense.default"} if options.get("critic_optimizer") else set()
    assert set(waits.found) <= of_optimizers


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", ["off", "on"])
@pytest.mark.parametrize("order", ["together", "critic_first"])
def test_a_captured_step_is_the_same_step(packed, order, compiled):
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        eager = Training(packed, "cuda", order=order, compiled=compiled)
        captured = Training(packed, "cuda", order=order, compiled=compiled, capture=True)
        captured.runner.warm_up(0)
        expected, found = eager.run(range(7)), captured.run(range(7))
    finally:
        torch.backends.cudnn.deterministic = before
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    for x, y in zip(eager.tensors(), captured.tensors(), strict=True):
        assert torch.allclose(x.float(), y.float(), rtol=1e-2, atol=1e-3)
    assert len(captured.runner._graphs) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("feed", [ResidentFeed, StreamFeed])
def test_the_host_never_waits_between_log_lines(packed, feed):
    training = Training(packed, "cuda", capture=True, feed=feed)
    training.runner.warm_up(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(12):  # over two changes of the epoch, and of the learning rate
            training.rates.set_epoch(number // training.runner.feed.order.steps_per_epoch)
            training.runner(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert training.meter.read().steps == 12


@pytest.mark.gpu
def test_a_replay_reads_the_new_learning_rate(packed):
    training = Training(packed, "cuda", capture=True)
    training.run(range(2))
    for tensor in training.rates._tensors:
        tensor.zero_()
    before = [p.detach().clone() for n in training.objective.networks.values() for p in n.parameters()]
    training.run(range(2, 4))
    after = [p.detach() for n in training.objective.networks.values() for p in n.parameters()]
    assert same(before, after)


@pytest.mark.gpu
def test_what_cannot_be_captured_is_said(packed, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")  # a real one would spoil the process

    training = Training(packed, "cuda", capture=True)
    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with pytest.raises(FastvaeError, match=r"operation not permitted.*--cuda-graph off"):
        training.runner.warm_up(0)


@pytest.mark.gpu
def test_a_log_line_for_every_step(packed):
    training = Training(packed, "cuda", capture=True, log_every=1)
    assert [training.run(range(step, step + 1)).keys() for step in range(3)] == [{"kl", "rec", "critic"}] * 3
