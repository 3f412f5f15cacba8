"""Encoded pictures on their way to the decoding threads: paths of files, or bytes out of a container."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# In bytes. Larger files count as broken.
LARGEST_FILE = 1 << 28
# Bytes of a container in one task. Files count as nothing, because the decoding thread reads them.
_TASK_BYTES = 1 << 22


@dataclass(frozen=True)
class BrokenImage:
    """The reason why a picture could not be read or decoded."""

    reason: str


Encoded = Path | bytes | BrokenImage


def in_tasks(pictures: Iterable[Encoded], count: int) -> Iterator[list[Encoded]]:
    """Lists of at most `count` pictures, which end early when they hold 4 MiB in memory."""
    task: list[Encoded] = []
    held = 0
    for picture in pictures:
        task.append(picture)
        held += len(picture) if isinstance(picture, bytes) else 0
        if len(task) == count or held >= _TASK_BYTES:
            yield task
            task, held = [], 0
    if task:
        yield task


def bytes_in(task: list[Encoded]) -> int:
    """Bytes that a task's pictures take in memory before they are decoded."""
    return sum(len(picture) for picture in task if isinstance(picture, bytes))
