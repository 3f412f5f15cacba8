"""Several ranks train as one: the same images, averaged gradients, one decision of each gate, equal parameters."""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.distributed.group import Group
from fastvae.distributed.place import Place, place
from fastvae.distributed.ranks import Ranks
from fastvae.distributed.together import together
from fastvae.errors import FastvaeError
from fastvae.objectives import OBJECTIVES
from fastvae.pictures import to_images
from fastvae.train.build import build
from fastvae.train.log import about_batch_and_rate
from fastvae.train.noise_seed import noise_seed
from fastvae.train.order import BatchOrder
from fastvae.train.sharded_feed import ShardedFeed
from fastvae.train.shared_state import check_same_loss_network
from tests.train.launched import Launched
from tests.train.test_feed import CountingLoader

STEPS, BATCH, RANKS = 3, 6, 2


def config(name: str) -> Config:
    options_class = OBJECTIVES[name][0]
    options = {}
    if name == "wgan":
        options = {"warmup_generator_steps": 1, "warmup_critic_steps": 2, "critic_steps": 1}
    elif name == "vae_gan":
        # In the first step the real images cost rank 0 less than 0.685 nats, rank 1 and both on average more.
        options = {"equilibrium": 1.035, "margin": 0.35}
    elif hasattr(options_class, "vgg"):
        options = {"vgg": "random", "layers": ("relu1_1", "relu2_1")}
    train = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=BATCH, seed=3)
    return Config(
        "test", options_class(**options), model=ModelConfig(image_size=16, width=2, latent=5, stages=4), train=train
    )


def batches(name: str, rank: int, noise_size: int):
    """The batches of a rank. Those of rank 1 are darker, so that the ranks' gradients differ."""
    generator = torch.Generator().manual_seed(rank)
    noise = torch.Generator().manual_seed(noise_seed(3, rank))
    for _ in range(STEPS):
        pixels = torch.randint(0, 256 >> 2 * rank, (BATCH, 16, 16, 3), dtype=torch.uint8, generator=generator)
        yield pixels, torch.empty(BATCH, noise_size).normal_(generator=noise)


def tensors_of(objective, terms) -> dict[str, torch.Tensor]:
    found = {
        f"{n}.{k}": v.clone().contiguous() for n, net in objective.networks.items() for k, v in net.state_dict().items()
    }
    return found | {f"term {name}": value.clone().reshape(1) for name, value in terms.items()}


def steps_of_all_objectives(folder) -> int:
    def command(ranks) -> int:
        for name in OBJECTIVES:
            training = build(config(name), ranks)
            for step, batch in enumerate(batches(name, ranks.rank, training.objective.noise_size)):
                terms = training.step(*batch, step)
                save_file(tensors_of(training.objective, terms), folder / f"{name}-{step}-{ranks.rank}.safetensors")
        return 0

    return together(place(), command)


def halves(name: str):
    """What one process computes that takes both ranks' batches after each other and averages their gradients."""
    trainings = [build(config(name)) for _ in range(RANKS)]  # of the second one only statistics are used, and terms
    data = [batches(name, rank, trainings[0].objective.noise_size) for rank in range(RANKS)]
    for step in range(STEPS):
        inputs, terms, local = [next(d) for d in data], {}, []
        for pass_index in range(len(trainings[0].objective.passes(step))):
            reported = []
            for training, (pixels, noise) in zip(trainings, inputs, strict=True):
                pass_ = training.objective.passes(step)[pass_index]
                total, found = pass_.loss(to_images(pixels), noise)
                total.backward()
                reported.append(found)
                local.append({k: v.item() for k, v in pass_.decide(found).items()})
            means = {key: torch.stack([r[key] for r in reported]).mean(0) for key in reported[0]}
            means |= pass_.decide(means)
            for ours, theirs in zip(*(parameters(t.objective) for t in trainings), strict=True):
                if ours.grad is not None:
                    ours.grad = theirs.grad = (ours.grad + theirs.grad) / 2
            for training in trainings:
                for update in training.objective.passes(step)[pass_index].updates:
                    training.updates[update].apply(means)
            terms |= means
        yield [tensors_of(training.objective, terms) for training in trainings], local


def parameters(objective):
    return [p for network in objective.networks.values() for p in network.parameters()]


def test_only_rank_0_warns_of_what_all_see(caplog):
    for rank, warnings in enumerate([1, 0]):
        caplog.clear()
        build(config("dfc_vae"), Ranks(Place(rank, size=2)))
        assert len(caplog.records) == warnings


def test_ranks_with_another_loss_network_end():
    class Second(Ranks):
        def from_first(self, text):
            return "of rank 0"

    check_same_loss_network(Second(Place(1, size=2)), "of rank 0")
    for other in ("another", None):
        with pytest.raises(FastvaeError, match="--vgg holds other"):
            check_same_loss_network(Second(Place(1, size=2)), other)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    launched = Launched(folder, partial(steps_of_all_objectives, folder))
    assert launched.wait() == [0], launched.said.read_text()
    return folder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_ranks_equal_one_process_that_computes_both_halves(two_ranks, name):
    disagreed = False
    for step, (expected, local) in enumerate(halves(name)):
        found = [load_file(two_ranks / f"{name}-{step}-{rank}.safetensors") for rank in range(RANKS)]
        for rank in range(RANKS):
            assert found[rank].keys() == expected[rank].keys()
            for key in expected[rank]:
                message = (step, rank, key)
                assert torch.allclose(found[rank][key], expected[rank][key], rtol=1e-4, atol=1e-5), message
        shared = [k for k in found[0] if "running_" not in k]
        assert all(torch.equal(found[0][key], found[1][key]) for key in shared)
        disagreed |= local[0] != local[1]
    assert disagreed == (name == "vae_gan"), "the ranks' own costs would open other gates"


def test_the_rest_of_a_share_is_read_in_parts_that_may_each_take_their_time(packed):
    """Else a run that goes on late in an epoch, whose rest takes longer than a rank may read, never gets past it."""
    parts, watch = [], SimpleNamespace(doing=None)

    class Watched(Ranks):
        @contextmanager
        def reads(self, what):
            with Group.reads(SimpleNamespace(watch=watch), what):
                parts.append(watch.doing)
                yield

    order = BatchOrder(40, 4, seed=0, ranks=2)
    order.start_at(1, 0, 32)
    ranks = Watched(Place(0, size=2))
    feed = ShardedFeed(CountingLoader(packed), np.arange(40), order, torch.device("cpu"), ranks)
    feed.ready(1)
    with ranks.reads("a step's images"):
        began = watch.doing[1]
        feed.ready(2)
        assert watch.doing[0] == "a step's images" and watch.doing[1] > began
    assert watch.doing is None
    assert [what for what, _ in parts if "share" in what] == [
        f"reading images {first} to {first + 3} of this rank's share" for first in range(1, 20, 4)
    ]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(("batch_size", "half"), [(2, None), (5, 2), (64, 32)])
def test_advice_about_the_batch_can_be_followed(batch_size, half, resumed):
    """A batch has at least two images, and a resumed run keeps its own."""
    said = about_batch_and_rate(
        TrainConfig(batch_size=batch_size), BatchOrder(200, batch_size, 0, ranks=2), resumed=resumed
    )
    assert said.startswith(f"2 ranks with {batch_size} images each: a step has {2 * batch_size} images")
    assert ("--batch-size" in said) == (half is not None and not resumed)
    assert half is None or resumed or f"--batch-size {half};" in said


@pytest.mark.parametrize("count", [40, 47])
def test_a_rank_keeps_its_share_and_exchanges_it_between_epochs(packed, tmp_path, count):
    """Shares of 13 or 14 images, 16 or 15; the run begins anywhere, also after another number of ranks."""
    train = np.arange(count)[::-1]

    def feeds() -> int:
        def command(ranks) -> int:
            for first, images in ((0, 0), (1, 12), (2, 24), (2, 20)):
                order = BatchOrder(count, 4, seed=3, flip=True, rank=ranks.rank, ranks=ranks.size)
                order.start_at(first, 0, images)
                loader = CountingLoader(packed)
                made = ShardedFeed(loader, train, order, torch.device("cpu"), ranks)
                for step in range(first, first + 11):
                    made.ready(step)
                    expected = torch.from_numpy(np.asarray(packed.images[train[order[step]]]))
                    pixels, flips = made.batch()
                    assert torch.equal(pixels, expected), (first, step)
                    assert flips.tolist() == order.flips(step).tolist(), (first, step)
                    made.ready(step)
                loaded = np.concatenate(loader.asked)
                assert len(loaded) == len(set(loaded)) == len(range(ranks.rank, count, ranks.size))
                assert loader.open == 0
            return 0

        return together(place(), command)

    launched = Launched(tmp_path, feeds, ranks=3)
    assert launched.wait() == [0], launched.said.read_text()
