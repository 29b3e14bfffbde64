"""Simulated threads: work runs in one step of the loop, after it would have taken its time.

Owns: when an item of work is done, and when the loop hears of it.
Must not know: what the work is.  How long it takes is the machine's business (`Storage`).

`work(item)` runs in one piece when its time is over, in the life of the process that submitted it: a crash before that
moment leaves it undone, a crash after it leaves it done without anybody having heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import Any, Final, Generic, TypeVar

from chaos.sim.links import US
from chaos.sim.lives import LIFE, Life
from chaos.sim.loop import SimLoop

Item = TypeVar("Item")
SYNC_NS: Final = (100 * US, 2_000 * US)
WAKE_NS: Final = (2 * US, 40 * US)
"""From the end of work in a thread to the loop's hearing of it."""


class Storage:
    """How long a machine's disk makes a thread wait.

    Args:
        loop: its time.
        dice: for latency alone.
        sync_ns: (least, most) of one piece of work.
    """

    def __init__(self, loop: SimLoop, dice: Random, sync_ns: tuple[int, int] = SYNC_NS) -> None:
        self.loop = loop
        self.random = dice.random
        self.sync_ns = sync_ns
        self.extra_ns = 0
        """Added to every piece: a slow disk."""
        self.hung = False
        """Nothing returns; see `hang`."""
        self.stuck: deque[tuple[Any, Any]] = deque()

    def draw_ns(self) -> int:
        """How long the next piece of work takes."""
        least, most = self.sync_ns
        return least + self.extra_ns + int(self.random() * (most - least))

    def wake_ns(self) -> int:
        """How long the loop takes to hear of it."""
        return WAKE_NS[0] + int(self.random() * (WAKE_NS[1] - WAKE_NS[0]))

    def hang(self) -> None:
        """From now on no piece of work ends, those that are under way included."""
        self.hung = True

    def unhang(self) -> None:
        """What hung ends now, one after another."""
        self.hung = False
        stuck, self.stuck = self.stuck, deque()
        for worker, _ in stuck:
            worker.go_on()

    def forget(self) -> None:
        """The machine lost power."""
        self.stuck.clear()


class SimWorker(Generic[Item]):
    """One thread; satisfies `raft.protocols.Worker`."""

    def __init__(
        self, storage: Storage, name: str, work: Callable[[Item], None], ended: Callable[[], None], life: Life
    ) -> None:
        self._storage = storage
        self._loop = storage.loop
        self._name = name
        self._work = work
        self._ended = ended
        self._life = life
        self._queue: deque[Any] = deque()
        self._context: Context | None = None
        self._busy = False
        self._heard_ns = 0

    def start(self) -> None:
        """Begin to work."""
        self._context = copy_context()
        self._next()

    def submit(self, item: Item) -> None:
        """Queue one item."""
        self._queue.append((item,))
        self._next()

    def stop(self) -> None:
        """End after what is queued."""
        self._queue.append(None)
        self._next()

    def go_on(self) -> None:
        """The disk answers again."""
        self._loop.at(self._loop.now + self._storage.draw_ns(), self._do, context=self._context)

    def _next(self) -> None:
        if self._busy or self._context is None or not self._queue:
            return
        self._busy = True
        delay_ns = 1 if self._queue[0] is None else self._storage.draw_ns()
        self._loop.at(self._loop.now + delay_ns, self._do, context=self._context)

    def _do(self) -> None:
        """The item's time is over: do it, in one piece."""
        item = self._queue[0]
        if item is not None and self._storage.hung:
            self._storage.stuck.append((self, item))
            return
        self._queue.popleft()
        loop = self._loop
        assert loop.thread_delay is None, "a thread within a thread"
        loop.thread_delay = self._hear_ns
        try:
            if item is None:
                self._ended()
            else:
                self._work(*item)
        finally:
            loop.thread_delay = None
            self._busy = False
        if item is not None:
            self._next()

    def _hear_ns(self) -> int:
        """When the loop hears of something: after what it was told before."""
        self._heard_ns = max(self._loop.now + self._storage.wake_ns(), self._heard_ns + 1)
        return self._heard_ns


class SimThreads:
    """Threads of one machine; satisfies `raft.protocols.Threads`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def worker(self, name: str, work: Callable[[Item], None], ended: Callable[[], None]) -> SimWorker[Item]:
        """A worker that is not started yet."""
        return SimWorker(self._storage, name, work, ended, LIFE.get())
