"""A thread of each rank that sees when another one is lost, and then ends this process.

No collective operation has a useful time limit: rank 0 evaluates while the others wait in the next all-reduce, some
ranks compile longer than others, and a hung NCCL kernel inside a CUDA graph cannot be interrupted at all. So operations
wait as long as it takes, and who is alive is asked apart from them: every rank writes a growing number into torchrun's
store twice a second.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from fastvae.distributed.failure import Failure

# Seconds between two signs of life; without one for so long a rank is lost, or, after a broken connection, for so long.
BEAT_S, LOST_S, GONE_S = 0.5, 15.0, 3.0
# A rank that reads its next images for so long hangs.
STUCK_S = 45.0
# For the rank that speaks to save and to speak. torchrun kills what is left 30 s after the first rank has ended.
SPEAK_S = 25.0


class Watch:
    """Watches the other ranks, and this one's reading of images.

    Args:
        store: this thread's own connection; a store serves one caller at a time.
        rank: of this process.
        size: number of ranks.
        first_of_machine: this rank speaks if the store is lost, through which ranks could agree who does.

    Attributes:
        save: called by the rank that speaks, on the watching thread; saves what can be saved and says so in a sentence,
            or "".
        doing: what this rank does that must not take longer than `STUCK_S`, and since when; None if nothing.
    """

    def __init__(self, store: Any, rank: int, size: int, *, first_of_machine: bool):
        self._store, self.rank, self.size, self._first_of_machine = store, rank, size, first_of_machine
        self.save: Callable[[], str] = lambda: ""
        self._beats = 0
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._broken = False
        self.doing: tuple[str, float] | None = None
        self._ending = threading.Lock()  # held by the thread that ends this process
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """From now on a lost rank ends this process; all call it at about the same time."""
        self._seen = {other: (b"", time.monotonic()) for other in range(self.size) if other != self.rank}
        self._thread.start()

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=SPEAK_S)

    def connection_broke(self, seconds: float) -> None:
        """Somebody seems to be gone; find out who, fast. Returns after some seconds if nobody is."""
        self._broken = True
        self._thread.join(seconds)
        if self._ending.locked():
            self._thread.join()

    def publish(self, failure: Failure) -> None:
        """Ends all ranks; the first failure counts."""
        self._store.compare_set("failure", "", failure.to_json())

    def claim_end(self) -> None:
        """From now on the caller ends this process; returns only if the watching thread does not."""
        self._ending.acquire()

    def said(self) -> None:
        """Tells the others that the message is out."""
        self._store.set("said", "1")

    def wait_until_said(self) -> bool:
        """Waits for the rank that speaks; False if it does not."""
        end = time.monotonic() + SPEAK_S
        try:
            while time.monotonic() < end:
                if self._store.check(["said"]):
                    return True
                time.sleep(0.05)
        except Exception:  # the store has gone with whoever held it
            time.sleep(max(0.0, end - time.monotonic()))
        return False

    def _run(self) -> None:
        while not self._closed.wait(BEAT_S):
            try:
                failure = self._look()
            except Exception:  # of the connection
                failure = Failure(0, "or its machine was lost, and the store that torchrun keeps there", lost=True)
                self._store = None
            if failure is not None and not self._closed.is_set():
                if not self._ending.acquire(blocking=False):  # this rank's main thread has begun to end it
                    return
                self._end(failure)

    def _look(self) -> Failure | None:
        self._beat()
        now = time.monotonic()
        if (doing := self.doing) is not None and now - doing[1] > STUCK_S:
            stuck = Failure(self.rank, f"{doing[0]} takes longer than {STUCK_S:.0f} s")
            self._store.compare_set("failure", "", stuck.to_json())
        if self._store.check(["failure"]):
            return Failure.from_json(self._store.get("failure"))
        keys = [f"beat/{other}" for other in self._seen]
        if self._store.check(keys):
            beats = self._store.multi_get(keys)
        else:  # some have not begun yet
            beats = [self._store.get(key) if self._store.check([key]) else b"" for key in keys]
        patience = GONE_S if self._broken else LOST_S
        for (other, (before, since)), beat in zip(list(self._seen.items()), beats, strict=True):
            if beat != before:
                self._seen[other] = beat, now
            elif now - since > patience:
                lost = Failure(other, "was lost: killed, or stopped, or its machine cannot be reached", lost=True)
                # All name the same one.
                return Failure.from_json(self._store.compare_set("failure", "", lost.to_json()))
        return None

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(f"beat/{self.rank}", str(self._beats))

    def _end(self, failure: Failure) -> None:
        """Ends this process, from this thread: the main one may be where nothing can reach it."""
        try:
            speaker = 1 if failure.lost and failure.rank == 0 and self.rank != 0 else 0
            speaks = self.rank == speaker if self._store is not None else self._first_of_machine
            if speaks or (self._store is not None and not self.wait_until_said()):
                saved = self.save()
                sys.stderr.write(f"fastvae train: {failure}{saved}\n")
                sys.stderr.flush()
                if self._store is not None:
                    self.said()
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(failure.code)
