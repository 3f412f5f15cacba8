import numpy as np

from fastvae.data.flips import flips


def _bits(*, seed: int, epoch: int) -> str:
    return "".join("01"[int(flip)] for flip in flips(np.arange(32), seed=seed, epoch=epoch))


def test_never_changes():
    # Runs that are resumed under another version must go on with the same images.
    assert _bits(seed=0, epoch=0) == "00001100001000011010010100100111"
    assert _bits(seed=7, epoch=5) == "10111000000101100100010100110110"


def test_is_splitmix64():
    """Against the definition, in Python's integers."""
    for seed, epoch in [(0, 0), (2**40 + 1, 3)]:
        state = int(np.random.SeedSequence(seed, spawn_key=(epoch, 1)).generate_state(1, np.uint64)[0])
        expected = []
        for _ in range(100):
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
            expected.append((z ^ (z >> 31)) >> 63)
        assert flips(np.arange(100), seed=seed, epoch=epoch).tolist() == expected


def test_an_image_has_the_same_coin_in_any_company():
    images = np.arange(1000)
    alone = flips(images, seed=3, epoch=2)
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(images).reshape(10, 100)
    assert np.array_equal(flips(shuffled, seed=3, epoch=2), alone[shuffled])
    assert flips(shuffled, seed=3, epoch=2).dtype == bool


def test_coins_are_fair_and_independent():
    """Five standard deviations of 10,000 coins are 250; a pair agrees as often as it differs."""
    keys = [(0, 0), (0, 1), (1, 0), (0, 2), (2**40, 0)]
    coins = np.stack([flips(np.arange(10_000), seed=seed, epoch=epoch) for seed, epoch in keys])
    assert (np.abs(coins.sum(1) - 5000) < 250).all()
    for first in range(len(coins)):
        for second in range(first):
            assert abs(int((coins[first] == coins[second]).sum()) - 5000) < 250
    assert abs(int((coins[:, 1:] == coins[:, :-1]).sum()) - 25_000) < 560
    per_image = np.stack([flips(np.arange(100), seed=0, epoch=e) for e in range(400)]).sum(0)
    assert (np.abs(per_image - 200) < 50).all()
