"""What a rank does without others, and what a group cannot do without."""

from types import SimpleNamespace

import pytest
import torch

from fastvae.distributed.group import Group
from fastvae.distributed.place import Place
from fastvae.distributed.ranks import ALONE
from fastvae.errors import FastvaeError, UsageError


def test_alone_nothing_happens():
    numbers = torch.tensor([1.0, 2.0])
    ALONE.average_(numbers)
    ALONE.broadcast_(numbers)
    assert numbers.tolist() == [1.0, 2.0] and ALONE.gathered(numbers) == [numbers]
    assert ALONE.largest(3, True, 0) == (3, 1, 0) and ALONE.from_first("text") == "text"
    assert ALONE.alone and ALONE.first
    with ALONE.first_of_machine_first(), ALONE.reads("an image"):
        pass
    ALONE.close()


def test_a_torch_without_distributed_says_so(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(FastvaeError, match=r"built without torch.distributed"):
        Group(Place(0, 2, 0, 2))


@pytest.mark.parametrize(
    ("gpus", "nccl", "kind", "message"),
    [
        (1, True, UsageError, "2 processes on this machine need as many GPUs; there are 1: start torchrun with"),
        (2, False, FastvaeError, "has no NCCL"),
    ],
)
def test_what_several_gpus_need(monkeypatch, gpus, nccl, kind, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    group = SimpleNamespace(local_size=2, local_rank=1, _dist=SimpleNamespace(is_nccl_available=lambda: nccl))
    with pytest.raises(kind, match=message):
        Group.use(group, torch.device("cuda"))
    Group.use(group, torch.device("cpu"))
