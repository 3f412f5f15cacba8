"""The ranks of one attempt find each other, whatever an earlier attempt has left."""

import threading

import pytest

from fastvae.distributed.meeting import meet
from fastvae.errors import FastvaeError


class Store:
    """What is used of torch's store, in memory."""

    def __init__(self):
        self.values = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


def attempt(store: Store, ranks: list[int]) -> set[str]:
    """The names that these ranks go on with; the first ones come first."""
    names: dict[int, str] = {}

    def come(rank: int) -> None:
        names[rank] = meet(store, rank, len(ranks), seconds=60)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
        thread.join(0.2)
    for thread in threads:
        thread.join()
    assert len(names) == len(ranks)
    return set(names.values())


@pytest.mark.parametrize("ranks", [[0, 1, 2], [2, 1, 0]])
def test_every_attempt_has_a_name_of_its_own(ranks):
    store = Store()
    names = [attempt(store, ranks) for _ in range(2)]
    assert [len(found) for found in names] == [1, 1] and names[0] != names[1]


def test_who_has_not_come_is_named():
    store = Store()
    with pytest.raises(FastvaeError, match=r"ranks 1, 2 have not come within 0 s"):
        meet(store, 0, 3, seconds=0.1)
    with pytest.raises(FastvaeError, match="some rank has not come"):
        meet(store, 1, 3, seconds=0.1)
