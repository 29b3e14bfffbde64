"""The sandboxer's event loop: one thread, epoll and timers.

Owns: waiting.  Must not know: what it waits for.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Loop:
    """Calls back when a descriptor is ready or a time has come."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[tuple[int, int, Callback]] = []
        self._timer_count = 0
        self._running = True

    @staticmethod
    def now_ns() -> int:
        """CLOCK_BOOTTIME in nanoseconds: it counts suspended time too."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call back while `fd` is readable or hung up."""
        self._readers[fd] = callback
        self._register(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call back while `fd` is writable."""
        self._writers[fd] = callback
        self._register(fd)

    def remove_writer(self, fd: int) -> None:
        """Stop watching for writing."""
        if self._writers.pop(fd, None) is not None:
            self._register(fd)

    def remove(self, fd: int) -> None:
        """Stop watching `fd`; before closing it."""
        if self._readers.pop(fd, None) or self._writers.pop(fd, None):
            self._writers.pop(fd, None)
            self._epoll.unregister(fd)

    def _register(self, fd: int) -> None:
        mask = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)

    def call_later(self, delay_s: float, callback: Callback) -> None:
        """Call back once, `delay_s` from now."""
        self.call_at(self.now_ns() + int(delay_s * 1e9), callback)

    def call_at(self, time_ns: int, callback: Callback) -> None:
        """Call back once at a time of `now_ns`."""
        self._timer_count += 1
        heapq.heappush(self._timers, (time_ns, self._timer_count, callback))

    def stop(self) -> None:
        """Return from `run` after the present callback."""
        self._running = False

    def run(self) -> None:
        """Run until `stop`."""
        while self._running:
            self._run_timers()
            if self._running:
                self._poll()

    def _poll(self) -> None:
        timeout_s = None
        if self._timers:
            timeout_s = max(0.0, (self._timers[0][0] - self.now_ns()) / 1e9)
        for fd, mask in self._epoll.poll(timeout_s):
            if mask & ~select.EPOLLOUT and fd in self._readers:
                self._readers[fd]()
            if mask & ~select.EPOLLIN and fd in self._writers:
                self._writers[fd]()

    def _run_timers(self) -> None:
        now_ns = self.now_ns()
        while self._running and self._timers and self._timers[0][0] <= now_ns:
            _, _, callback = heapq.heappop(self._timers)
            callback()
