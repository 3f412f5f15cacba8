"""Which rank this process is, from what torchrun sets."""

import pytest

from fastvae.distributed.place import Place, place
from fastvae.errors import UsageError

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "1",
    "TORCHELASTIC_MAX_RESTARTS": "3",
}


def test_without_torchrun_a_process_is_alone():
    assert place({"RANK": "3", "MASTER_ADDR": "left over"}) == Place() == Place(0, 1, 0, 1, 0, 0)


def test_with_torchrun():
    assert place(TORCHRUN) == Place(5, 8, 1, 4, 1, 3)
    assert place({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) == Place()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": None}, "RANK is missing: start it with torchrun, or unset WORLD_SIZE"),
        ({"MASTER_PORT": None}, "MASTER_PORT is missing"),
        ({"WORLD_SIZE": "many"}, "expected a number in the environment variable WORLD_SIZE; got 'many'"),
        ({"RANK": "8"}, "got RANK 8 of 8"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK 4 of 4"),
    ],
)
def test_what_is_wrong_is_said(change, message):
    with pytest.raises(UsageError) as error:
        place({name: value for name, value in (TORCHRUN | change).items() if value is not None})
    assert message in str(error.value)
