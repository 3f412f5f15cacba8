"""How a run of several processes fails: one rank's problem becomes one message and the end of all."""

import json
from dataclasses import asdict, dataclass

from fastvae.errors import FastvaeError


class LostRank(FastvaeError):
    """A collective operation failed, since another rank is gone. Which one, `Group.fail` finds out."""


@dataclass(frozen=True)
class Failure:
    """What ended a run.

    Attributes:
        rank: whose problem it was.
        message: what happened, without the rank.
        code: the exit code of all ranks.
        lost: the rank cannot speak for itself.
    """

    rank: int
    message: str
    code: int = 1
    lost: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} {self.message}" if self.lost else f"rank {self.rank}: {self.message}"

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Failure":
        """The failure that another rank wrote."""
        return cls(**json.loads(text))
