"""One direction of a connection: reliable and in order, as TCP is, at TCP's price.

Owns: arrival times, loss and retransmission with a doubling time-out, what is in flight when a link is cut.
Must not know: what the segments mean, or who sits at the ends beyond `End`.

A lost segment holds up those behind it until it is sent again: after 200 ms, then twice as long each time.  A cut loses
what is in flight; after the heal the next retransmission gets through, so a long cut is followed by a long wait unless
somebody dials anew.  Acknowledgements are not modelled: they are taken to get through whenever data does.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Protocol

from chaos.sim.handles import SimTimer
from chaos.sim.links import Link
from chaos.sim.lives import NS_PER_S, Life

if TYPE_CHECKING:
    from chaos.sim.net import Network

OPEN, DATA, FIN, RESET = 0, 1, 2, 3
"""Kinds of segments: the dialer's first, payload, end of one direction, end of both."""
RTO_FIRST_NS: Final = 200_000_000
RTO_MAX_NS: Final = 120 * NS_PER_S
RETRIES_MAX: Final = 15
OVERHEAD_BYTES: Final = 64


class End(Protocol):
    """One end of a connection, as a pipe sees it."""

    life: Life
    context: Context
    host: Any

    def arrive(self, kind: int, data: Any) -> None:
        """A segment arrived; runs in `context`, and never while the life is halted."""
        ...

    def arrive_halted(self, kind: int, data: Any) -> None:
        """A segment arrived at a machine whose process is dead or paused."""
        ...

    def broken(self, error: OSError) -> None:
        """What was sent was never acknowledged."""
        ...


class Pipe:
    """From `near` to `far`.

    `clear`: the next segment needs nothing but an arrival time.
    """

    __slots__ = (
        "_loop",
        "_net",
        "_random",
        "_retries",
        "_retry",
        "_rto_ns",
        "clear",
        "far",
        "flight",
        "last_ns",
        "link",
        "near",
        "route",
        "stopped",
        "waiting",
    )

    def __init__(self, net: Network, near: End, far: End, link: Link, route: Link) -> None:
        self._net = net
        self._loop = net.loop
        self._random = net.random
        self.near = near
        self.far = far
        self.link = link
        self.route = route
        self.flight: deque[SimTimer] = deque()
        self.waiting: deque[tuple[int, Any]] = deque()
        """Lost, or behind something lost."""
        self.last_ns = 0
        self._rto_ns = RTO_FIRST_NS
        self._retries = 0
        self._retry: SimTimer | None = None
        self.stopped = False
        link.pipes[self] = None
        route.pipes[self] = None
        self.clear = link.plain and not route.impairments

    def send(self, kind: int, data: Any) -> None:
        """Take a segment on its way; never blocks."""
        if self.clear:
            loop, link = self._loop, self.link
            at = loop.now + link.base_ns + int(self._random() * link.span_ns)
            if at <= self.last_ns:
                at = self.last_ns + 1
            self.last_ns = at
            self.flight.append(loop.at_root(at, self.far.context, self._arrive, kind, data))
        elif not self.stopped:
            if self.waiting:
                self.waiting.append((kind, data))
            else:
                self._transmit(kind, data)

    def stop(self) -> None:
        """Nothing is sent or arrives any more."""
        if self.stopped:
            return
        self.stopped, self.clear = True, False
        self._recalled()
        self.waiting.clear()
        self._retire()

    def silence(self) -> None:
        """The sending machine went dark: what it would have sent again is lost, what is in flight arrives."""
        self.clear = False
        self.stopped = True
        self.waiting.clear()
        self._retire()

    def lose_flight(self) -> None:
        """What is in flight does not arrive; it is sent again."""
        if self.flight:
            self._lose(self._recalled(), "cut")

    def link_changed(self, *, cut_now: bool) -> None:
        """The link or the route got better or worse."""
        if cut_now:
            self.lose_flight()
        self.clear = self.link.plain and not self.route.impairments and not self.waiting and not self.stopped

    @property
    def cut(self) -> bool:
        """Whether nothing gets through now."""
        return self.link.cut or self.route.cut

    # -- the slow path ----------------------------------------------------------------------

    def _transmit(self, kind: int, data: Any) -> bool:
        """Send one segment; False if it is lost."""
        loop, link = self._loop, self.link
        why = self._lost()
        if why:
            self._net.dropped(why, link, 1)
            if kind == RESET:
                return True  # a reset is not repeated: the other end finds out when it next sends
            self.waiting.appendleft((kind, data))
            self.clear = False
            self._wait()
            return False
        at = loop.now
        for each in (link, self.route):
            at += each.base_ns + int(self._random() * each.span_ns)
            if each.bytes_per_s:
                at += each.queue_ns(loop.now, _size(data))
        self.last_ns = at = max(at, self.last_ns + 1)
        self.flight.append(loop.at_root(at, self.far.context, self._arrive, kind, data))
        return True

    def _lost(self) -> str:
        """Why a segment sent now is lost; "" if it is not."""
        if self.link.cut or self.route.cut:
            return "cut"
        if not self.far.host.powered:
            return "down"
        if self.link.loss and self._random() < self.link.loss:
            return "loss"
        if self.route.loss and self._random() < self.route.loss:
            return "loss"
        return ""

    def _wait(self) -> None:
        if self._retry is None:
            self._retry = self._loop.at_root(self._loop.now + self._rto_ns, _WORLD, self._again)

    def _again(self) -> None:
        """The retransmission time-out."""
        self._retry = None
        self._retries += 1
        if self._retries > RETRIES_MAX:
            self.stop()
            self.near.broken(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            return
        self._rto_ns = min(2 * self._rto_ns, RTO_MAX_NS)
        while self.waiting:
            if not self._transmit(*self.waiting.popleft()):
                return
            self._rto_ns, self._retries = RTO_FIRST_NS, 0
        self.clear = self.link.plain and not self.route.impairments

    # -- arriving ---------------------------------------------------------------------------

    def _arrive(self, kind: int, data: Any) -> None:
        self.flight.popleft()
        far = self.far
        if far.life.halted and not far.host.powered:
            self._lose([(kind, data), *self._recalled()], "down")
            return
        self.route.arrived += 1
        if kind >= FIN:
            self.clear, self.stopped = False, True
            self._retire()
        if far.life.halted:
            far.arrive_halted(kind, data)
        else:
            far.arrive(kind, data)

    def _recalled(self) -> list[tuple[int, Any]]:
        """Take back what is in flight."""
        segments = [timer._args for timer in self.flight]
        for timer in self.flight:
            timer.cancel()
        self.flight.clear()
        return segments

    def _lose(self, segments: list[tuple[int, Any]], why: str) -> None:
        """These do not arrive; they are sent again, before all that waits."""
        self._net.dropped(why, self.link, len(segments))
        if not self.stopped:
            self.waiting.extendleft(reversed(segments))
            self.clear = False
            self._wait()

    def _retire(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.link.pipes.pop(self, None)
        self.route.pipes.pop(self, None)


_WORLD: Final = Context()
"""The world's own callbacks carry no life."""


def _size(data: Any) -> int:
    """Bytes of a segment, roughly: a stream's pieces, or a message with its size."""
    if isinstance(data, list):
        return sum(map(len, data)) + OVERHEAD_BYTES
    return (data[0] if isinstance(data, tuple) else 0) + OVERHEAD_BYTES
