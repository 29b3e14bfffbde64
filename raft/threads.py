"""Real threads that work off a queue each.

Owns: the one place where consensus starts a thread.  Must not know: what is worked off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from raft.protocols import Worker

Item = TypeVar("Item")


class _Stop:
    """Queued behind the last item."""


class QueueThread(Generic[Item]):
    """One daemon thread and its queue; satisfies `raft.protocols.Worker`."""

    def __init__(self, name: str, work: Callable[[Item], None], ended: Callable[[], None]) -> None:
        self._work = work
        self._ended = ended
        self._queue: SimpleQueue[Item | _Stop] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Queue one item."""
        self._queue.put(item)

    def stop(self) -> None:
        """End the thread after what is queued."""
        self._queue.put(_Stop())

    def _run(self) -> None:
        while not isinstance(item := self._queue.get(), _Stop):
            self._work(item)
        self._ended()


class SystemThreads:
    """Threads of the operating system; satisfies `raft.protocols.Threads`."""

    __slots__ = ()

    def worker(self, name: str, work: Callable[[Item], None], ended: Callable[[], None]) -> Worker[Item]:
        """A thread that is not started yet."""
        return QueueThread(name, work, ended)
