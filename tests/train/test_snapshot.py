"""A copy on the host: the same values, names and order, whatever the tensors' layouts and dtypes."""

import pytest
import torch

from fastvae.train.kept_state import KeptState
from fastvae.train.snapshot import Snapshot, Snapshots, gather, gathered_bytes, views

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def some_tensors(device: str) -> dict[str, torch.Tensor]:
    made = {
        "step": torch.tensor(7.0),
        "convolution": torch.randn(5, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "count": torch.tensor(12, dtype=torch.int64),
        "linear": torch.randn(7, 3),
        "transposed": torch.randn(3, 7).t(),
        "every second": torch.randn(10)[::2],
        "half": torch.randn(3).bfloat16(),
        "empty": torch.empty(0),
        "another count": torch.tensor([3, 4], dtype=torch.int64),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


def test_gathered_tensors_are_found_in_the_buffer():
    tensors = some_tensors("cpu")
    buffer = torch.full((gathered_bytes(tensors) + 5,), 255, dtype=torch.uint8)
    gather(tensors, buffer)
    found = views(tensors, buffer.clone())
    assert found.keys() == tensors.keys()
    assert all(found[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    # Dense tensors keep their layout: equal strides are copied in one launch.
    dense = tensors.keys() - {"every second"}
    assert all(found[name].stride() == tensors[name].stride() for name in dense)


@pytest.mark.parametrize("device", DEVICES)
def test_a_snapshot_does_not_change_with_the_tensors(device):
    tensors = some_tensors(device)
    expected = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    snapshots = Snapshots(torch.device(device))
    for _ in range(2):  # the second time into the same buffers
        snapshot = snapshots.take({**tensors, "noise": torch.arange(3, dtype=torch.uint8)})
        for tensor in tensors.values():
            tensor.add_(1)
        found = snapshot.read()
        assert list(found) == [*tensors, "noise"]
        assert torch.equal(found.pop("noise"), torch.arange(3, dtype=torch.uint8))
        assert all(t.is_contiguous() and t.device.type == "cpu" for t in found.values())
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        expected = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def test_what_has_arrived_is_there_even_if_the_device_fails_then():
    class Event:
        fails = False

        def query(self):
            if self.fails:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return True

        synchronize = query

    noted, not_noted, kept = (Snapshot({"a": torch.ones(2)}, Event()) for _ in range(3))
    assert noted.has_arrived
    state = KeptState(torch.device("cpu"))
    state._kept = [(None, kept)]
    state.keep(None, {("file", "a"): torch.zeros(2)})  # the next copy: has the one before arrived?
    Event.fails = True
    assert kept.has_arrived
    assert noted.has_arrived and torch.equal(noted.read()["a"], torch.ones(2))
    assert not not_noted.has_arrived


def test_views_of_one_buffer_can_be_saved():
    """safetensors refuses tensors that share memory, which pieces of one buffer do not."""
    from safetensors.torch import save  # which a machine that only runs the tests for a GPU may lack

    tensors = some_tensors("cpu")
    buffer = torch.zeros(gathered_bytes(tensors), dtype=torch.uint8)
    gather(tensors, buffer)
    found = {name: tensor.contiguous() for name, tensor in views(tensors, buffer).items()}
    expected = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert save(found) == save(Snapshots(torch.device("cpu")).take(tensors).read()) == expected


@pytest.mark.gpu
def test_taking_a_snapshot_waits_for_nothing_on_a_gpu():
    tensors, snapshots = some_tensors("cuda"), Snapshots(torch.device("cuda"))
    snapshots.take(tensors).read()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        snapshot = snapshots.take(tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(snapshot.read()["linear"], tensors["linear"].cpu())
