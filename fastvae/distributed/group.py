"""Several ranks: a torch.distributed process group, and the end of all when one has ended."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor

from fastvae.distributed.failure import Failure, LostRank
from fastvae.distributed.meeting import meet
from fastvae.distributed.place import Place
from fastvae.distributed.ranks import Ranks
from fastvae.distributed.watch import GONE_S, LOST_S, Watch
from fastvae.errors import FastvaeError, UsageError, first_line

# `Watch` decides who is lost; until then operations wait.
_PATIENCE = timedelta(days=7)
# For all processes to start and find each other.
_STARTS = timedelta(minutes=10)
# Of the watching thread's connection.
_ANSWERS = timedelta(seconds=20)


class Group(Ranks):
    """One of several processes, that form a torch.distributed process group.

    Sums are those of NCCL on GPUs and of gloo on CPUs; what hosts say to each other goes through a group of its own, of
    gloo.

    Args:
        place: of this process.

    Attributes:
        watch: sees who is lost.

    Raises:
        FastvaeError: this PyTorch cannot, or the others do not answer.
    """

    def __init__(self, place: Place):
        super().__init__(place)
        import torch.distributed as dist

        if not dist.is_available():
            raise FastvaeError(
                "this PyTorch was built without torch.distributed, which training with torchrun needs: install one "
                "that has it (on Linux all have), or start without torchrun"
            )
        self._dist = dist
        try:
            from torch.distributed.rendezvous import rendezvous

            store, _, _ = next(rendezvous("env://", timeout=_STARTS))
            name = meet(dist.PrefixStore("fastvae", store), self.rank, self.size, seconds=_STARTS.total_seconds())
            own = dist.PrefixStore(f"fastvae/{name}/watch", store.clone())
            own.set_timeout(_ANSWERS)
            self.watch = Watch(own, self.rank, self.size, first_of_machine=self.local_rank == 0)
            self.watch.start()
            hosts = dist.PrefixStore(f"fastvae/{name}/hosts", store)
            dist.init_process_group("gloo", store=hosts, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
            self._hosts, self._devices = dist.group.WORLD, dist.group.WORLD
        except (RuntimeError, ValueError, OSError) as error:
            raise FastvaeError(
                f"rank {self.rank} of {self.size} cannot reach the others ({first_line(error)}): are all started, with "
                "the same address of the first machine, and does a firewall let them through?"
            ) from error

    def use(self, device: torch.device) -> None:
        """Trains on this kind of device: chooses this process's GPU, and NCCL for the sums.

        Raises:
            UsageError: there are fewer GPUs than processes on this machine.
            FastvaeError: this PyTorch has no NCCL.
        """
        if device.type != "cuda":
            return
        if (count := torch.cuda.device_count()) < self.local_size:
            raise UsageError(
                f"{self.local_size} processes on this machine need as many GPUs; there are {count}: start "
                f"torchrun with --nproc-per-node {max(count, 1)}, or train on the CPU with --device cpu"
            )
        if not self._dist.is_nccl_available():
            raise FastvaeError("this PyTorch has no NCCL, which several GPUs need: train on one, or on Linux")
        torch.cuda.set_device(self.local_rank)
        self._devices = self._dist.new_group(backend="nccl", timeout=_PATIENCE)

    def average_(self, tensor: Tensor) -> None:
        """See `Ranks.average_`."""
        with self._others():
            if tensor.is_cuda:
                self._dist.all_reduce(tensor, self._dist.ReduceOp.AVG, group=self._devices)
            else:  # gloo has no mean
                self._dist.all_reduce(tensor, self._dist.ReduceOp.SUM, group=self._devices)
                tensor.div_(self.size)

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """See `Ranks.largest`."""
        together = torch.tensor(numbers, dtype=torch.int64)
        with self._others():
            self._dist.all_reduce(together, self._dist.ReduceOp.MAX, group=self._hosts)
        return tuple(together.tolist())

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """See `Ranks.gathered`."""
        every = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._others():
            self._dist.all_gather(every, tensor.contiguous(), group=self._hosts)
        return every

    def from_first(self, text: str) -> str:
        """See `Ranks.from_first`."""
        data = torch.from_numpy(np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).copy())
        (length,) = self.largest(len(data) if self.first else 0)
        data = data if self.first else torch.empty(length, dtype=torch.uint8)
        self.broadcast_(data)
        return data.numpy().tobytes().decode("utf-8", "surrogateescape")

    def broadcast_(self, tensor: Tensor) -> None:
        """See `Ranks.broadcast_`."""
        with self._others():
            self._dist.broadcast(tensor, 0, group=self._hosts)

    def exchange(self, rows: Tensor, sends: list[int], receives: list[int]) -> Tensor:
        """See `Ranks.exchange`."""
        result = rows.new_empty(sum(receives), *rows.shape[1:])
        with self._others():
            self._dist.all_to_all_single(result, rows.contiguous(), receives, sends, group=self._devices)
        return result

    @contextlib.contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """See `Ranks.first_of_machine_first`."""
        if self.local_rank:
            self.largest(0)
        yield
        if not self.local_rank:
            self.largest(0)

    @contextlib.contextmanager
    def reads(self, what: str) -> Iterator[None]:
        """See `Ranks.reads`."""
        around = self.watch.doing
        self.watch.doing = what, time.monotonic()
        try:
            yield
        finally:  # what it is a part of is as far as this has come
            self.watch.doing = around and (around[0], time.monotonic())

    def on_loss(self, save: Callable[[], str]) -> None:
        """See `Ranks.on_loss`."""
        self.watch.save = save

    def interrupted(self) -> None:
        """This process was told to end. If that is since another rank was lost, it ends here, with the message."""
        self.watch.connection_broke(GONE_S + 2)
        self.watch.close()

    def fail(self, error: BaseException) -> int:
        """Ends all ranks because of this one's error, with one message.

        Returns:
            The exit code of this process.
        """
        code = getattr(error, "exit_code", 1)
        if isinstance(error, LostRank):
            self.watch.connection_broke(LOST_S)  # and there it ends, usually
        self.watch.claim_end()
        message = str(error) if isinstance(error, FastvaeError) else f"{type(error).__name__}: {first_line(error)}"
        if self.first:
            print(f"fastvae train: {message}", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):  # the store may have gone
            if self.first or not getattr(error, "on_all_ranks", False):
                self.watch.publish(Failure(self.rank, message, code))
            if self.first:
                self.watch.said()
            elif not self.watch.wait_until_said():
                print(f"fastvae train: rank {self.rank}: {message}", file=sys.stderr, flush=True)
        return code

    def close(self) -> None:
        """See `Ranks.close`."""
        with contextlib.suppress(LostRank):
            self.largest(0)
        self.watch.close()
        self._dist.destroy_process_group()

    @contextlib.contextmanager
    def _others(self) -> Iterator[None]:
        doing = self.watch.doing  # waiting for others is not reading
        self.watch.doing = None
        try:
            yield
            self.watch.doing = doing and (doing[0], time.monotonic())
        except RuntimeError as error:
            raise LostRank(f"the connection to another rank broke ({first_line(error)})") from error
