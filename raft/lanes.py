"""Threads for work with snapshots, so that neither the event loop nor the log's writer waits for it.

Owns: jobs, one after another in each lane, and their answers.  Must not know: asyncio, or what a job does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from raft.protocols import Clock, Threads


class LaneName(StrEnum):
    """OWN: own snapshots are written, what they made unnecessary is removed.  PEERS: pieces are read and written.

    DIGEST: digests of the state are worked out.
    """

    OWN = "own"
    PEERS = "peers"
    DIGEST = "digest"


class Job:
    """`work` runs in a thread; `then` gets the job on the event loop.  `error` is what `work` raised, or None."""

    def __init__(self, lane: LaneName, work: Callable[[], Any], then: Callable[[Job], None]) -> None:
        self.lane = lane
        self.then = then
        self._work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.took_ns = 0

    def run(self, clock: Clock) -> None:
        """Do it; never raises."""
        started = clock.now_ns()
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error
        self.took_ns = clock.now_ns() - started


class Lane:
    """One thread; `done` is called in it after each job, `ended` once after `stop`."""

    def __init__(
        self, name: LaneName, clock: Clock, threads: Threads, done: Callable[[Job], None], ended: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._done = done
        self._thread = threads.worker(f"raft-state-{name}", self._work, ended)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; who makes jobs bounds how many there are."""
        self._thread.submit(job)

    def stop(self) -> None:
        """End the thread after the jobs that are queued."""
        self._thread.stop()

    def _work(self, job: Job) -> None:
        job.run(self._clock)
        self._done(job)
