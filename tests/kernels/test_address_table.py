"""Tables of addresses: what is filled when, and what a captured graph reads. Captures are pretended."""

import pytest
import torch

from fastvae.kernels import address_table, tables_copied_once

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_at_the_start(monkeypatch):
    for name, empty in (("_tables", type(address_table._tables)()), ("_read_by_graphs", []), ("_put_aside", {})):
        monkeypatch.setattr(address_table, name, empty)


@pytest.fixture
def filled(monkeypatch):
    """Grows by one whenever a table is filled."""
    made, fill = [], address_table._filled
    monkeypatch.setattr(address_table, "_filled", lambda *args: made.append(args) or fill(*args))
    return made


@pytest.fixture
def capturing(monkeypatch):
    """Called with True or False, begins or ends a capture."""

    def switch(on):
        monkeypatch.setattr(address_table, "_is_capturing", lambda device: on)

    return switch


def columns(*sizes):
    return [[torch.zeros(n) for n in sizes] for _ in range(2)]


def test_what_is_in_a_table():
    (a, b, c), grads = tensors = columns(5, 0, 9)
    table, programs = address_table.address_table(tensors, 4)
    assert programs == 2 + 1 + 3  # an empty tensor has one, too: for its counter
    assert table.tolist() == [
        *(0, 0, 1, 2, 2, 2),
        *(0, 5, a.data_ptr(), grads[0].data_ptr()),
        *(2, 0, b.data_ptr(), grads[1].data_ptr()),
        *(3, 9, c.data_ptr(), grads[2].data_ptr()),
    ]


def test_a_table_is_filled_when_an_address_changed(filled):
    tensors, moved = columns(3, 5), columns(3, 5)
    for each in (tensors, tensors, tensors, moved, tensors, moved):
        address_table.address_table(each, 4)
    assert len(filled) == 2


def test_few_tables_are_kept(filled, monkeypatch):
    monkeypatch.setattr(address_table, "_MAX_TABLES", 2)
    several = [columns(3) for _ in range(3)]
    for i in (0, 1, 0, 2, 0, 1):
        address_table.address_table(several[i], 4)
    assert len(filled) == 4 and len(address_table._tables) == 2


def test_captured_updates_have_tables_of_their_own(filled, capturing):
    """Without `tables_copied_once`: pinned buffers, which the graph's nodes copy, are never written again."""
    tensors = columns(3, 5)
    cached, _ = address_table.address_table(tensors, 4)
    capturing(True)
    captured = [address_table.address_table(tensors, 4)[0] for _ in range(2)]
    capturing(False)
    address_table.address_table(columns(3, 5), 4)
    kept = address_table._read_by_graphs
    assert len(filled) == 4 and len(kept) == 2
    # What a replay would read are the addresses of the captured updates.
    assert all(torch.equal(table, cached) for table in kept)
    assert len({table.data_ptr() for table in [cached, *kept]}) == 3
    assert all(table is not one for table in captured for one in address_table._tables.values())


def test_tables_are_copied_when_the_capture_has_ended(capturing):
    first, second = columns(3, 5), columns(2000)
    cached = [address_table.address_table(each, 4)[0].clone() for each in (first, second)]
    moved = [[[t.clone() for t in column] for column in each] for each in (first, second)]
    with tables_copied_once():
        capturing(True)
        tables = [address_table.address_table(each, 4)[0].fill_(-1) for each in moved]
        capturing(False)
        assert all((table == -1).all() for table in tables)  # nothing is copied yet
    for table, old, each in zip(tables, cached, moved, strict=True):
        assert table.shape == old.shape and not torch.equal(table, old)
        assert torch.equal(table, address_table.address_table(each, 4)[0])
        # Aligned as if allocated alone, kept alive, and not in the cache, which may be evicted.
        assert (table.data_ptr() - tables[0].data_ptr()) % 512 == 0
        assert any(table is kept for kept in address_table._read_by_graphs)
        assert all(table.data_ptr() != one.data_ptr() for one in address_table._tables.values())


def test_a_second_capture_has_memory_of_its_own(capturing):
    tensors = columns(3, 5)
    address_table.address_table(tensors, 4)
    tables = []
    for _ in range(2):
        with tables_copied_once():
            capturing(True)
            tables.append(address_table.address_table(tensors, 4)[0])
            capturing(False)
    assert tables[0].data_ptr() != tables[1].data_ptr() and torch.equal(*tables)


def test_an_update_that_never_ran_copies_at_every_replay(capturing):
    """Nothing was reserved for it, and nothing can be allocated for it during the capture."""
    known, unknown = columns(3), columns(5)
    address_table.address_table(known, 4)
    with tables_copied_once():
        capturing(True)
        for each in (known, unknown):
            address_table.address_table(each, 4)
        capturing(False)
    host, copied_once = address_table._read_by_graphs
    assert host.tolist() == address_table.address_table(unknown, 4)[0].tolist()
    assert copied_once.tolist() == address_table.address_table(known, 4)[0].tolist()


def test_a_capture_that_fails_copies_nothing(capturing):
    tensors = columns(3)
    address_table.address_table(tensors, 4)
    with pytest.raises(RuntimeError, match="capture"), tables_copied_once():
        capturing(True)
        table, _ = address_table.address_table(tensors, 4)
        table.fill_(-1)
        raise RuntimeError("the capture failed")
    capturing(False)
    assert (table == -1).all() and address_table._read_by_graphs == []
    assert address_table._reserve.get() is None
