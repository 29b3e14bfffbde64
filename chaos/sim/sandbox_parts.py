"""What surrounds a simulated sandboxer besides its kernel: loop, outputs, network, tracer.

Owns: the small parts of `agents.sandboxer.surroundings`.  Must not know: the process they are put together to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from agents.sandboxer import protocol
from agents.sandboxer.network import Connection
from chaos.sim.host import ProcessHost
from chaos.sim.syscalls import Syscalls
from cluster.trace import Tracer


class Loop:
    """The sandboxer's loop on the world's; satisfies `surroundings.Loop`."""

    def __init__(
        self, host: ProcessHost, context: Context, guarded: Callable[[Callable[[], None]], None], calls: Syscalls
    ) -> None:
        self._loop = host.machine.world.loop
        self._clock = host.machine.clock
        self._context = context
        self._guarded = guarded
        self._calls = calls

    def now_ns(self) -> int:
        """See `loop.Loop`: time passes within a step, too."""
        return self._clock.now_ns() + self._calls.spent_ns

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """See `loop.Loop`."""
        self._calls.watch(fd, callback)

    def remove(self, fd: int) -> None:
        """See `loop.Loop`."""
        self._calls.unwatch(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """See `loop.Loop`."""
        self.call_at(self.now_ns() + int(delay_s * 1e9), callback)

    def call_at(self, time_ns: int, callback: Callable[[], None]) -> None:
        """See `loop.Loop`."""
        delay_ns = self._clock.true_delay_ns(max(0, time_ns - self._clock.now_ns()))
        self._loop.at(self._loop.now + delay_ns, self._guarded, callback, context=self._context)


class Outputs:
    """Nobody writes output; satisfies `surroundings.Outputs`.  The directory's name is the group's."""

    parent = "/"

    def __init__(self, calls: Syscalls) -> None:
        self._calls = calls

    def path(self, name: str) -> str:
        """See `output.Outputs`."""
        return f"/{protocol.OUTPUT_DIRECTORY}/{name}"

    def work(self, name: str) -> str:
        """See `output.Outputs`."""
        return self.path(name)

    def owners(self) -> dict[str, int]:
        """See `output.Outputs`."""
        return {}

    def open(self, name: str, user: int) -> tuple[int, int]:
        """See `output.Outputs`."""
        return self._calls.plain(), self._calls.plain()

    def watch(self, name: str) -> None:
        """See `output.Outputs`."""

    def unwatch(self, name: str) -> None:
        """See `output.Outputs`."""

    def discard(self, name: str) -> None:
        """See `output.Outputs`."""

    def bound_all(self) -> None:
        """See `output.Outputs`."""


class HostNetwork:
    """Every workload has the machine's network; satisfies `surroundings.Network`."""

    helper_pid = 0

    def connect(self, name: str, asked: str, ports: tuple[tuple[int, int], ...]) -> Connection:
        """See `network.Network`."""
        return Connection(own=False)

    def disconnect(self, name: str) -> None:
        """See `network.Network`."""

    def adopt(self, name: str, record: dict[str, Any]) -> None:
        """See `network.Network`."""

    def clean(self) -> None:
        """See `network.Network`."""


class SandboxTracer:
    """A cluster's tracer with the methods of the sandboxer's; satisfies `surroundings.Tracer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.node = tracer.node
        self.emit = tracer.emit

    def tick(self) -> tuple[int, int]:
        """See `trace.Tracer`."""
        _, lamport, hybrid = self._tracer.stamp_send()
        return lamport, hybrid

    def observe(self, lamport: Any, hlc: Any) -> None:
        """See `trace.Tracer`."""
        if isinstance(lamport, int) and isinstance(hlc, int):
            self._tracer.observe(lamport, hlc)
