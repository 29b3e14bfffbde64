"""What each toxic does to the bytes of one stream of one connection.

Owns: the behaviour of every toxic, as a stage that takes bytes and hands on bytes later, fewer
or in other pieces.  Must not know: sockets, HTTP, counters.  Time and chance are injected.

A stage keeps the order.  When its toxic is removed it hands on all it holds; when the stream
is silenced it drops all it holds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from chaos.proxy.toxic import Toxic


class Cancellable(Protocol):
    """A timer that has not rung."""

    def cancel(self) -> None:
        """Never ring."""
        ...


class Timers(Protocol):
    """The part of an event loop that stages need."""

    def time(self) -> float:
        """Seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Cancellable:
        """Ring once at `when`."""
        ...


class Outlet(Protocol):
    """Where a stage hands its bytes: the next stage or the socket."""

    def push(self, data: bytes) -> None:
        """Take bytes, in order."""
        ...

    def end(self) -> None:
        """Nothing follows (FIN)."""
        ...


class Host(Protocol):
    """What a stage may do to its stream and connection."""

    def discarded(self, count: int) -> None:
        """`count` bytes were thrown away."""
        ...

    def close_at_end(self) -> None:
        """Close both sides once the end has passed all later stages."""
        ...

    def close(self) -> None:
        """Close both sides."""
        ...

    def reset(self) -> None:
        """Close both sides with RST."""
        ...


class Stage:
    """Passes everything on; the base of all stages."""

    def __init__(self, toxic: Toxic, timers: Timers, dice: Random, host: Host) -> None:
        self.toxic = toxic
        self.timers = timers
        self.dice = dice
        self.host = host
        self.next: Outlet
        self.held = 0
        """Bytes taken and not yet handed on."""

    def push(self, data: bytes) -> None:
        """Take bytes, in order."""
        self.next.push(data)

    def end(self) -> None:
        """Nothing follows."""
        self.next.end()

    def update(self) -> None:
        """The toxic's attributes changed."""

    def release(self) -> None:
        """The toxic is removed: hand on all that is held."""

    def drop(self) -> int:
        """The stream is silenced: forget all that is held; returns the bytes."""
        return 0

    def close(self) -> None:
        """The connection is closed: forget everything, let no timer ring."""
        self.drop()


class DelayLine(Stage):
    """Holds pieces until their time; the base of all stages that delay."""

    def __init__(self, toxic: Toxic, timers: Timers, dice: Random, host: Host) -> None:
        super().__init__(toxic, timers, dice, host)
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._timer: Cancellable | None = None
        self._last = 0.0

    def put(self, due: float, data: bytes | None) -> None:
        """Hand `data` (None = the end) on at `due`, but never before what came earlier."""
        due = self._last = max(due, self._last)
        self._queue.append((due, data))
        self.held += len(data or b"")
        self._arm()

    def end(self) -> None:
        """The end waits behind the bytes."""
        self.put(self.timers.time(), None)

    def release(self) -> None:
        """Hand on everything now."""
        self._disarm()
        while self._queue:
            self._hand_on()

    def drop(self) -> int:
        """Forget everything."""
        self._disarm()
        self._queue.clear()
        dropped, self.held = self.held, 0
        return dropped

    def update(self) -> None:
        """Plan again what is held, under the new attributes."""
        self._disarm()
        waiting, self._last, self.held = list(self._queue), 0.0, 0
        self._queue.clear()
        for _, data in waiting:
            if data is None:
                self.end()
            else:
                self.push(data)

    def _hand_on(self) -> None:
        _, data = self._queue.popleft()
        if data is None:
            self.next.end()
        else:
            self.held -= len(data)
            self.next.push(data)

    def _arm(self) -> None:
        if self._timer is None and self._queue and self._queue[0][0] < math.inf:
            self._timer = self.timers.call_at(self._queue[0][0], self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        now = self.timers.time() + 1e-4  # a timer may ring a clock tick early
        while self._queue and self._queue[0][0] <= now:
            self._hand_on()
        self._arm()


class Latency(DelayLine):
    """Every piece arrives `latency` ± `jitter` ms later, in order."""

    def push(self, data: bytes) -> None:
        """Delay by the time since arrival, so that a stream stays pipelined."""
        jitter = self.toxic.attributes["jitter"]
        delay = self.toxic.attributes["latency"] + (self.dice.uniform(-jitter, jitter) if jitter else 0.0)
        self.put(self.timers.time() + max(0.0, delay) / 1000, data)


class Bandwidth(DelayLine):
    """At most `rate` KB (1,000 bytes) a second."""

    PIECE_S = 0.02

    def __init__(self, toxic: Toxic, timers: Timers, dice: Random, host: Host) -> None:
        super().__init__(toxic, timers, dice, host)
        self._free_at = 0.0

    def push(self, data: bytes) -> None:
        """Cut into pieces of 20 ms each and pace them."""
        rate = self.toxic.attributes["rate"] * 1000
        if rate == 0:
            self.put(math.inf, data)
            return
        size = max(1, int(rate * self.PIECE_S))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._free_at = max(self._free_at, self.timers.time()) + len(piece) / rate
            self.put(self._free_at, piece)

    def update(self) -> None:
        """Pace anew from now."""
        self._free_at = 0.0
        super().update()


class Slicer(DelayLine):
    """Pieces of `average_size` ± `size_variation` bytes, `delay` µs apart."""

    def push(self, data: bytes) -> None:
        """Cut, and space the pieces out."""
        attributes, start = self.toxic.attributes, 0
        due = max(self.timers.time(), self._last)
        while start < len(data):
            variation = attributes["size_variation"]
            size = max(1, attributes["average_size"] + self.dice.randint(-variation, variation))
            self.put(due, data[start : start + size])
            start += size
            due += attributes["delay"] / 1e6


class SlowClose(DelayLine):
    """The end arrives `delay` ms late; bytes are not held."""

    def push(self, data: bytes) -> None:
        """Bytes pass."""
        self.next.push(data)

    def end(self) -> None:
        """The end waits."""
        self.put(self.timers.time() + self.toxic.attributes["delay"] / 1000, None)


class Hold(DelayLine):
    """Keeps everything until the toxic is removed; the sender sees a stall, no byte is lost."""

    def push(self, data: bytes) -> None:
        """Keep."""
        self.put(math.inf, data)

    def end(self) -> None:
        """Keep the end too."""
        self.put(math.inf, None)


class Timeout(Stage):
    """Not a byte passes; after `timeout` ms (0 = never) the connection is closed.

    The pipe itself discards the bytes of a silenced stream, so nothing comes here.
    """

    def __init__(self, toxic: Toxic, timers: Timers, dice: Random, host: Host) -> None:
        super().__init__(toxic, timers, dice, host)
        self._timer: Cancellable | None = None
        self.update()

    def update(self) -> None:
        """Start the time again."""
        self._disarm()
        if wait_ms := self.toxic.attributes["timeout"]:
            self._timer = self.timers.call_at(self.timers.time() + wait_ms / 1000, self.host.close)

    def release(self) -> None:
        """As in Toxiproxy the connection is closed, so that peers dial again."""
        self._disarm()
        self.host.close()

    def close(self) -> None:
        """A closed connection needs no timer."""
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ResetPeer(Stage):
    """`timeout` ms after the first byte both sides get RST; no byte passes."""

    def __init__(self, toxic: Toxic, timers: Timers, dice: Random, host: Host) -> None:
        super().__init__(toxic, timers, dice, host)
        self._timer: Cancellable | None = None

    def push(self, data: bytes) -> None:
        """Start the time at the first byte."""
        self.host.discarded(len(data))
        if self._timer is None:
            wait_s = self.toxic.attributes["timeout"] / 1000
            self._timer = self.timers.call_at(self.timers.time() + wait_s, self.host.reset)

    def end(self) -> None:
        """An end without a byte passes."""
        if self._timer is None:
            self.next.end()

    def release(self) -> None:
        """Removed before the time: bytes are missing, so the connection cannot go on."""
        if self._timer is not None:
            self._timer.cancel()
            self.host.reset()

    def close(self) -> None:
        """A closed connection needs no timer."""
        if self._timer is not None:
            self._timer.cancel()


class LimitData(Stage):
    """After `bytes` bytes the connection is closed."""

    def __init__(self, toxic: Toxic, timers: Timers, dice: Random, host: Host) -> None:
        super().__init__(toxic, timers, dice, host)
        self._passed = 0
        self._over = False

    def push(self, data: bytes) -> None:
        """Pass what is left of the limit."""
        left = max(0, self.toxic.attributes["bytes"] - self._passed)
        self._passed += min(left, len(data))
        if left:
            self.next.push(data[:left])
        self.host.discarded(len(data) - min(left, len(data)))
        if len(data) >= left and not self._over:
            self._over = True
            self.host.close_at_end()
            self.next.end()

    def end(self) -> None:
        """The end passes once."""
        if not self._over:
            self.next.end()


STAGES: dict[str, type[Stage]] = {
    "latency": Latency,
    "bandwidth": Bandwidth,
    "slow_close": SlowClose,
    "timeout": Timeout,
    "reset_peer": ResetPeer,
    "slicer": Slicer,
    "limit_data": LimitData,
    "hold": Hold,
}
