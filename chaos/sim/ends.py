"""What is common to both kinds of ends of connections: dying, being reset, being paused.

Owns: the kernel's half of an end, which outlives its process.
Must not know: what payload is.

A process that is killed has its connections closed by its machine: what it had written still goes out, then the end of
the stream; a reset instead if there was something it had not read.  Whatever arrives afterwards is answered with a
reset.  A machine that lost power says nothing at all until it is up again.
"""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any

from chaos.sim.lives import Life
from chaos.sim.pipes import FIN, OPEN, RESET, Pipe

if TYPE_CHECKING:
    from chaos.sim.net import Network


class EndBase:
    """A subclass has `deliver(kind, data)`, `take_reset(error)` and `unread()`."""

    net: Network
    life: Life
    host: Any
    context: Context
    out: Pipe
    peer: Any
    gone: bool
    """No payload is taken or given any more: closed, reset or dead."""
    fin_sent: bool
    fin_received: bool
    backlog: list[tuple[int, Any]]
    """What arrived while the machine was paused."""
    local: tuple[str, int]
    remote: tuple[str, int]

    # -- from the pipe ------------------------------------------------------------------------

    def arrive(self, kind: int, data: Any) -> None:
        """A segment arrived."""
        if self.backlog:
            self.backlog.append((kind, data))
        elif kind == RESET:
            self._reset(ConnectionResetError(104, "Connection reset by peer"))
        elif self.gone:
            self._late(kind)
        else:
            if kind == FIN:
                self.fin_received = True
            self.deliver(kind, data)

    def arrive_halted(self, kind: int, data: Any) -> None:
        """A segment arrived at a machine whose process is dead or paused."""
        if self.life.dead:
            self._late(kind)
        else:
            if not self.backlog:
                self.host.stalled.append(self)
            self.backlog.append((kind, data))

    def resumed(self) -> None:
        """The machine goes on: what arrived meanwhile is taken now.  Runs in `context`."""
        backlog, self.backlog = self.backlog, []
        for kind, data in backlog:
            self.arrive(kind, data)

    def broken(self, error: OSError) -> None:
        """What was sent was never acknowledged."""
        self._reset(error)

    # -- from the world -----------------------------------------------------------------------

    def reset_by_network(self) -> None:
        """Somebody between the ends breaks the connection."""
        self.net.loop.call_soon(
            self._reset, ConnectionResetError(104, "Connection reset by peer"), context=self.context
        )

    def died(self) -> None:
        """The life ended, the machine goes on."""
        self.life.graveyard.append(self)
        if self.gone or self.fin_sent:
            return
        self.gone = True
        if self.unread() or self.backlog:
            self.out.send(RESET, None)
        else:
            self.fin_sent = True
            self.out.send(FIN, None)

    def went_dark(self) -> None:
        """The machine lost power."""
        self.life.graveyard.append(self)
        self.gone = True
        self.out.silence()

    def answer_reset(self) -> None:
        """There was nobody any more when the connection stood."""
        self.gone = True

    # -- the inside ---------------------------------------------------------------------------

    def _late(self, kind: int) -> None:
        """Something arrived for an end that is closed or dead."""
        if kind == FIN:
            self.fin_received = True
            self._settle()
        elif kind != RESET:
            self.net.send_reset(self)
            self.out.stop()

    def _reset(self, error: OSError) -> None:
        if self.gone:
            self.out.stop()
            return
        self.gone = True
        self.out.stop()
        self.life.sockets.pop(self, None)
        if not self.life.dead:
            self.take_reset(error)

    def _settle(self) -> None:
        """Both directions have ended: nothing of the connection is left."""
        if self.fin_sent and self.fin_received:
            self.life.sockets.pop(self, None)

    # -- of the subclass -------------------------------------------------------------------------

    def deliver(self, kind: int, data: Any) -> None:
        """Take `OPEN`, `DATA` or `FIN`."""
        raise NotImplementedError

    def take_reset(self, error: OSError) -> None:
        """The connection is broken."""
        raise NotImplementedError

    def unread(self) -> bool:
        """Whether something arrived that the process has not read."""
        raise NotImplementedError


__all__ = ["FIN", "OPEN", "RESET", "EndBase"]
