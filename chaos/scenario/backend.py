"""What a scenario needs of the cluster that it breaks, whoever runs it.

Owns: the protocols of a backend: calls to its replicas, its links, its processes, its trace.
Must not know: an implementation (`chaos.scenario.live` breaks real processes, `chaos.sim.scenarios` simulated ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from chaos.links import Matrix, Pair


class NotSent(ConnectionError):
    """The call certainly reached nobody."""


class Unanswered(ConnectionError):
    """Nobody knows what became of the call; `code` says how it ended."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Answer(Struct, frozen=True):
    """An answer of a replica's API; `document` is what its JSON says."""

    status: int
    document: Any


class Emitter(Protocol):
    """Where trace events go."""

    def emit(self, kind: str, /, **fields: Any) -> object:
        """Record one event."""
        ...


class Api(Protocol):
    """The APIs of all replicas, by replica id."""

    @property
    def replicas(self) -> tuple[str, ...]:
        """Their ids, sorted."""
        ...

    async def ask(self, replica: str, path: str, *, body: Any = None, timeout_s: float) -> Answer:
        """GET, or POST where there is a body.

        Raises:
            NotSent: no connection came about.
            Unanswered: it may have been carried out.
        """
        ...


class Links(Protocol):
    """The directed links, and breaking them; a fault is named by its id."""

    async def matrix(self) -> Matrix:
        """The links there are."""
        ...

    async def cut(self, fault: str, pairs: Sequence[Pair]) -> None:
        """Not a byte passes on these links until `heal`."""
        ...

    async def delay(self, fault: str, pairs: Sequence[Pair], *, latency_ms: int, jitter_ms: int) -> None:
        """Messages on these links arrive late until `heal`."""
        ...

    async def heal(self, fault: str) -> None:
        """Remove what `fault` put into force."""
        ...


class Processes(Protocol):
    """Control of the processes; their names are node ids (``n1``, ``a2``)."""

    async def kill(self, name: str) -> None:
        """SIGKILL; returns once the process is gone."""
        ...

    async def start(self, name: str) -> None:
        """Start a process that is not running."""
        ...

    async def pause(self, name: str) -> None:
        """SIGSTOP."""
        ...

    async def resume(self, name: str) -> None:
        """SIGCONT."""
        ...

    async def pids(self) -> dict[str, int]:
        """Process name → pid, of those that run."""
        ...


class Backend(Struct, frozen=True):
    """One cluster, as a scenario breaks it."""

    name: str
    api: Api
    links: Links
    processes: Processes
    tracer: Emitter
