"""Runs `fastvae train` with several ranks, as torchrun does, in processes forked from this one, which start at once.

The agent is torchrun's own, with all it does when a rank ends: it stops the others, and starts them again as often as
`restarts` says.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fastvae.cli import main

FAILED = 97  # what an agent ends with whose ranks have failed


class Launched:
    """One agent for each machine, and the ranks that it starts.

    Args:
        folder: for what they write to standard error, "said".
        command: runs in each rank and gives its exit code; a list is the arguments of `fastvae`.
        ranks: on each machine.
        machines: simulated on this one.
        restarts: how often an agent starts failed ranks again.
        before: is called in each rank before its command, with the rank; to break something there.
    """

    def __init__(
        self,
        folder: Path,
        command: list[str] | Callable[[], int],
        *,
        ranks: int = 2,
        machines: int = 1,
        restarts: int = 0,
        before: Callable[[int], None] = lambda rank: None,
    ):
        self.said, self._pids = folder / "said", folder / "pids"
        self._pids.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def rank() -> None:
            # Complete, or another rank's number is read.
            number = os.environ["RANK"]
            (self._pids / f".{number}").write_text(str(os.getpid()))
            (self._pids / f".{number}").rename(self._pids / number)
            before(int(number))
            sys.exit(main(command) if isinstance(command, list) else command())

        self._agents = [self._fork(rank, ranks, machines, number, port, restarts) for number in range(machines)]

    def _fork(self, rank, ranks: int, machines: int, number: int, port: int, restarts: int) -> int:
        if agent := os.fork():
            return agent
        descriptor = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for target, source in enumerate((nowhere, nowhere, descriptor)):
            os.dup2(source, target)
        sys.stderr = os.fdopen(2, "w", closefd=False)  # pytest's is another file
        config = LaunchConfig(
            min_nodes=machines,
            max_nodes=machines,
            nproc_per_node=ranks,
            run_id="test",
            rdzv_backend="static",
            rdzv_endpoint=f"127.0.0.1:{port}",
            rdzv_configs={"rank": number},
            max_restarts=restarts,
            monitor_interval=0.1,
            start_method="fork",
            logs_specs=DefaultLogsSpecs(),
            local_addr="127.0.0.1",
        )
        try:
            elastic_launch(config, rank)()
        except SystemExit as exit:
            os._exit(exit.code)
        except BaseException:
            os._exit(FAILED)
        os._exit(0)

    def pid(self, rank: int) -> int:
        """Of the newest process of a rank."""
        return int((self._pids / str(rank)).read_text())

    def wait(self, seconds: float = 60) -> list[int]:
        """The exit codes of all agents, which must end within some time."""
        end, codes = time.monotonic() + seconds, {}
        while len(codes) < len(self._agents):
            for agent in self._agents:
                if agent not in codes and (ended := os.waitpid(agent, os.WNOHANG))[0]:
                    codes[agent] = os.waitstatus_to_exitcode(ended[1])
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.02)
        return [codes[agent] for agent in self._agents]
