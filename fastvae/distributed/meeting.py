"""How the ranks of one attempt find each other in a store that may still hold what an earlier attempt wrote."""

import json
import secrets
import time
from typing import Any

from fastvae.errors import FastvaeError


def meet(store: Any, rank: int, size: int, *, seconds: float) -> str:
    """Waits until all ranks of this attempt are there.

    torchrun starts ranks again, with the same store or a new one, and its count of restarts may differ between
    machines. So rank 0 draws a name for the attempt; every other rank puts a number of its own under that name, and
    goes on when rank 0 has answered with that number. What an earlier attempt wrote holds other numbers.

    Args:
        store: of torch.distributed.
        rank: of this process.
        size: number of ranks.
        seconds: to wait.

    Returns:
        The attempt's name, a prefix for its keys.

    Raises:
        FastvaeError: somebody has not come.
    """
    own, end = secrets.token_hex(8), time.monotonic() + seconds
    if rank == 0:
        store.set("attempt", own)
    while time.monotonic() < end:
        name = own if rank == 0 else store.get("attempt").decode() if store.check(["attempt"]) else None
        if rank == 0:
            if not _missing(store, own, size):
                store.set(f"{own}/all", json.dumps([store.get(f"{own}/{r}").decode() for r in range(1, size)]))
                return own
        elif name is not None:
            store.set(f"{name}/{rank}", own)
            if store.check([f"{name}/all"]) and json.loads(store.get(f"{name}/all"))[rank - 1] == own:
                return name
        time.sleep(0.05)
    absent = _missing(store, own, size) if rank == 0 else []
    who = f"ranks {', '.join(map(str, absent))} have" if absent else "some rank has"
    raise FastvaeError(
        f"{who} not come within {seconds:.0f} s: are all machines started, with the same address and port of the first "
        "one?"
    )


def _missing(store: Any, name: str, size: int) -> list[int]:
    return [rank for rank in range(1, size) if not store.check([f"{name}/{rank}"])]
