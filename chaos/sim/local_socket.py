"""The socket between an agent and its sandboxer, on one simulated machine.

Owns: a connection's two directions, its latency, and that it breaks when either process dies.
Must not know: what is said.

What is sent arrives in order, also behind a pause of the machine.  When one side's process dies, what it had sent
still arrives, then the end of the connection; when the power goes, nothing does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any, Final

from chaos.sim.lives import LIFE, Life
from chaos.sim.loop import SimLoop

LATENCY_NS: Final = (20_000, 150_000)

Json = dict[str, Any]


class Direction:
    """One way.  `deliver` is called in the receiver's life with each message, then once with None."""

    __slots__ = ("_context", "_dice", "_last_ns", "_loop", "_sent", "deliver")

    def __init__(self, loop: SimLoop, dice: Random, context: Context) -> None:
        self._loop = loop
        self._dice = dice
        self._context = context
        self._sent: deque[Json | None] = deque()
        self._last_ns = 0
        self.deliver: Callable[[Json | None], None] | None = None

    def send(self, message: Json | None) -> None:
        """Queue a message; None = the end."""
        self._sent.append(message)
        self._last_ns = max(self._last_ns, self._loop.now + self._dice.randrange(*LATENCY_NS))
        self._loop.at(self._last_ns, self._arrive, context=self._context)

    def _arrive(self) -> None:
        message = self._sent.popleft()
        if self.deliver is not None:
            self.deliver(message)


class End:
    """One process's end; tells the other side when its process dies (an entry of `Life.sockets`)."""

    def __init__(self, life: Life, out: Direction) -> None:
        self._life = life
        self._out = out
        self.closed = False
        life.sockets[self] = None

    def send(self, message: Json) -> None:
        """Send, unless it is closed."""
        if not self.closed:
            self._out.send(message)

    def close(self) -> None:
        """End in order."""
        if not self.closed:
            self.closed = True
            self._life.sockets.pop(self, None)
            self._out.send(None)

    def died(self) -> None:
        """The life ended, the machine goes on."""
        if not self.closed:
            self.closed = True
            self._out.send(None)

    def went_dark(self) -> None:
        """The machine lost power."""
        self.closed = True


class AgentEnd:
    """The agent's end; satisfies `agents.sandbox_channel.Channel`."""

    def __init__(self, end: End, incoming: Direction) -> None:
        self._end = end
        self._incoming = incoming

    def open(self, take: Callable[[Json], None], ended: Callable[[str], None]) -> None:
        """See `Channel.open`."""

        def deliver(message: Json | None) -> None:
            if self._end.closed:
                return
            if message is None:
                self._end.close()
                ended("the sandboxer closed the connection")
            else:
                take(message)

        self._incoming.deliver = deliver

    def send(self, message: Json) -> None:
        """See `Channel.send`."""
        self._end.send(message)

    def close(self) -> None:
        """See `Channel.close`."""
        self._end.close()


def connect(loop: SimLoop, dice: Random, *, agent: Context, sandboxer: Context) -> tuple[AgentEnd, End, Direction]:
    """A connection; returns the agent's end, the sandboxer's, and what the sandboxer is to receive from."""
    to_sandboxer, to_agent = Direction(loop, dice, sandboxer), Direction(loop, dice, agent)
    mine = End(agent[LIFE], to_sandboxer)
    theirs = End(sandboxer[LIFE], to_agent)
    return AgentEnd(mine, to_agent), theirs, to_sandboxer
