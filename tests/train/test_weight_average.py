"""The moving average of the weights: its formula for every objective, and what it leaves alone."""

import pytest
import torch

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.objectives import OBJECTIVES, vae_gan
from fastvae.train import weight_average
from fastvae.train.build import Training, build

DECAY = 0.5  # reached after eight updates: (1 + t) / (10 + t)
# Steps of a WGAN whose generator moves, with one critic step in the warm-up and two for each later one.
OPTIONS = {"wgan": {"warmup_generator_steps": 1, "warmup_critic_steps": 1, "critic_steps": 2}}


def training(name: str, ema: float, seed: int = 0) -> Training:
    options_class = OBJECTIVES[name][0]
    options = OPTIONS.get(name, {})
    if hasattr(options_class, "vgg"):
        options = {"vgg": "random", "layers": ("relu1_1",)}
    train = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=4, ema=ema, seed=seed)
    return build(Config("test", options_class(**options), model=ModelConfig(16, width=2, latent=3), train=train))


def step(of: Training, number: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8, generator=random)
    return of.step(pixels, torch.randn(4, of.objective.noise_size, generator=random), number)


def floats(of: Training, networks: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {
        f"ema.{name}.{key}": t.detach().clone()
        for name in networks
        for key, t in of.objective.networks[name].state_dict().items()
        if t.is_floating_point()
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_is_the_average_of_what_each_update_left(name, monkeypatch):
    decoder_moves = iter([1.0, 0.0, 1.0, 1.0, 0.0] + 10 * [1.0])
    moves = lambda *_: (torch.tensor(next(decoder_moves)), torch.tensor(1.0))  # noqa: E731
    monkeypatch.setattr(vae_gan, "gates", moves)
    of = training(name, DECAY)
    groups = of.objective.averaged
    expected = [{k: t.double() for k, t in floats(of, group.networks).items()} for group in groups]
    updates = [0] * len(groups)
    for number in range(12):
        terms = step(of, number)
        for i, group in enumerate(groups):
            applied = any(group.update in pass_.updates for pass_ in of.objective.passes(number))
            gate = of.updates[group.update].gate
            if applied and (gate is None or terms[gate]):
                weight = 1 - min(DECAY, (1 + updates[i]) / (10 + updates[i]))
                updates[i] += 1
                for key, t in floats(of, group.networks).items():
                    expected[i][key] += weight * (t.double() - expected[i][key])
    found = of.step.average.tensors()
    for group, count, averages in zip(groups, updates, expected, strict=True):
        assert found[f"ema.{group.update}"] == count
        for key, average in averages.items():
            torch.testing.assert_close(found[key].double(), average, rtol=1e-5, atol=1e-6, msg=key)
    assert min(updates) == {"wgan": 6, "vae_gan": 10}.get(name, 12), "a skipped update is not averaged"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_network_that_makes_images_is_averaged(name):
    objective = training(name, DECAY).objective
    makers = {n for n in objective.networks if n.rpartition(".")[2] in ("encoder", "decoder", "generator")}
    assert makers and makers == {n for group in objective.averaged for n in group.networks}


def test_training_does_not_notice_it():
    plain, averaged = (training("vae_gan", ema) for ema in (0.0, DECAY))
    assert plain.step.average is None
    for number in range(3):
        step(plain, number), step(averaged, number)
        with averaged.step.average.in_use():  # as an evaluation between two steps
            pass
    networks = tuple(plain.objective.networks)
    a, b = floats(plain, networks), floats(averaged, networks)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_inside_in_use_the_networks_are_the_average():
    of = training("plain_vae", DECAY)
    for number in range(3):
        step(of, number)
    networks, average = ("encoder", "decoder"), of.step.average
    before, averages = floats(of, networks), {k: t.clone() for k, t in average.tensors().items()}
    with pytest.raises(KeyboardInterrupt), average.in_use():
        assert all(torch.equal(t, averages[key]) for key, t in floats(of, networks).items())
        raise KeyboardInterrupt
    assert all(torch.equal(t, before[key]) for key, t in floats(of, networks).items())
    assert any(not torch.equal(t, averages[key]) for key, t in before.items())


@pytest.mark.parametrize("gate", [None, 0.0, 1.0])
def test_its_weight_compiles(gate):
    """As one graph, whose numbers are those of the eager form; a second average of another decay has its own."""
    compiled = torch.compile(weight_average._next_weight, fullgraph=True, dynamic=False, backend="aot_eager")
    gate = None if gate is None else torch.tensor(gate)
    for decay in (0.5, 0.999):
        ours, eager = ([torch.tensor(7.0), torch.zeros(())] for _ in range(2))
        for _ in range(2):
            compiled(*ours, gate, decay)
            weight_average._next_weight(*eager, gate, decay)
        assert torch.equal(torch.stack(ours), torch.stack(eager))
        moves = 1 if gate is None else gate
        assert ours[0] == 7 + 2 * moves and ours[1] == pytest.approx(moves * max(1 - decay, 9 / 18))
