"""What the processes of one run do together: sums, decisions, waiting for each other. Alone, nothing of it happens."""

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor

from fastvae.distributed.place import Place


class Ranks:
    """The only process of a run; a `group.Group` is one of several, and does what this class leaves out.

    Attributes:
        rank: number of this process.
        size: number of processes.
        local_rank, local_size: the same among those of this machine.
    """

    def __init__(self, place: Place = Place()):  # noqa: B008, it is frozen
        self.rank, self.size = place.rank, place.size
        self.local_rank, self.local_size = place.local_rank, place.local_size

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this process writes, evaluates and speaks for all."""
        return self.rank == 0

    def average_(self, tensor: Tensor) -> None:
        """Replaces a tensor by its mean over the ranks, on its device; may be captured in a CUDA graph."""

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """The largest of each number over the ranks. All ranks wait for each other, on the host."""
        return tuple(map(int, numbers))

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have one shape and dtype, on the CPU."""
        return [tensor]

    def from_first(self, text: str) -> str:
        """A text of rank 0."""
        return text

    def broadcast_(self, tensor: Tensor) -> None:
        """Replaces a tensor on the CPU by that of rank 0."""

    def exchange(self, rows: Tensor, sends: list[int], receives: list[int]) -> Tensor:
        """Sends rows to all ranks and gives what they sent.

        Args:
            rows: [n, ...], on the device of the run, in the order of their receivers.
            sends: how many of them each rank gets.
            receives: how many rows come from each.

        Returns:
            [sum of `receives`, ...] in the order of their senders.
        """
        return rows

    @contextlib.contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """One process of each machine does what is inside, such as preparing a folder in the cache, then the others."""
        yield

    @contextlib.contextmanager
    def reads(self, what: str) -> Iterator[None]:
        """What is inside hangs if it takes longer than `watch.STUCK_S`; `what` says so, "reading the images".

        Inside another one, each part that is done shows that the whole goes on.
        """
        yield

    def on_loss(self, save: Callable[[], str]) -> None:
        """What to call, on another thread, when a rank is lost; see `Watch.save`."""

    def close(self) -> None:
        """Leaves the others, after an end that all have agreed on."""


ALONE = Ranks()
