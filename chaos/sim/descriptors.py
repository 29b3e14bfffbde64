"""The descriptors of one simulated process.

Owns: which number stands for what, what is readable, calling back whoever watches.
Must not know: system calls, or what the process is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from chaos.sim.processes import Process

FIRST: Final = 3
Callback = Callable[[], None]


@dataclass(slots=True)
class Descriptor:
    """What a number stands for."""

    process: Process | None = None
    said: bytearray = field(default_factory=bytearray)
    pending: bool = False
    """Something is to be read, or the other end was closed."""
    ended: bool = False
    """The other end of the pipe was closed."""
    readable: Callback | None = None


class Descriptors:
    """All of a process; `defer` runs a callback of it in a later step, unless it died."""

    def __init__(self, defer: Callable[[Callback], None]) -> None:
        self._defer = defer
        self._open: dict[int, Descriptor] = {}
        self._next = FIRST

    def add(self, descriptor: Descriptor) -> int:
        """Its number."""
        fd, self._next = self._next, self._next + 1
        self._open[fd] = descriptor
        return fd

    def of(self, fd: int) -> Descriptor:
        """What `fd` stands for; KeyError if it is closed."""
        return self._open[fd]

    def process(self, pidfd: int) -> Process:
        """Whose pidfd it is."""
        process = self._open[pidfd].process
        assert process is not None, "no pidfd"
        return process

    def close(self, fd: int) -> None:
        """Nothing is told of it any more."""
        descriptor = self._open.pop(fd, None)
        if descriptor is not None:
            descriptor.readable = None

    def close_all(self) -> None:
        """The process is gone."""
        for fd in list(self._open):
            self.close(fd)

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back while `fd` is readable."""
        descriptor = self._open[fd]
        descriptor.readable = callback
        if descriptor.pending:
            self._ready(fd, descriptor)

    def unwatch(self, fd: int) -> None:
        """Stop that."""
        if fd in self._open:
            self._open[fd].readable = None

    def pend(self, fd: int, descriptor: Descriptor) -> None:
        """There is something to be read."""
        descriptor.pending = True
        if self._open.get(fd) is descriptor and descriptor.readable is not None:
            self._ready(fd, descriptor)

    def say(self, fd: int, data: bytes) -> None:
        """Bytes arrive."""
        descriptor = self._open.get(fd)
        if descriptor is not None:
            descriptor.said += data
            self.pend(fd, descriptor)

    def hang_up(self, fd: int) -> None:
        """The other end was closed."""
        descriptor = self._open.get(fd)
        if descriptor is not None:
            descriptor.ended = True
            self.pend(fd, descriptor)

    def _ready(self, fd: int, descriptor: Descriptor) -> None:
        self._defer(lambda: self._call_back(fd, descriptor))

    def _call_back(self, fd: int, descriptor: Descriptor) -> None:
        if self._open.get(fd) is not descriptor or descriptor.readable is None or not descriptor.pending:
            return
        descriptor.readable()
        if self._open.get(fd) is descriptor and descriptor.readable is not None and descriptor.pending:
            self._ready(fd, descriptor)
