"""One direction of one connection: bytes from a source socket through stages to a sink socket.

Owns: reading, writing, back-pressure and the silence of a cut.  Must not know: toxics'
behaviour (`stages`), names of proxies, HTTP.

Plain non-blocking sockets with the loop's `add_reader`/`add_writer` instead of transports: a
transport's buffer cannot be taken back, and a cut must stop bytes that are here already.  A
byte counts as forwarded when the kernel has taken it for the sink.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol

from chaos.proxy.stages import Stage

READ_BYTES = 256 << 10
HELD_BYTES_MAX = 4 << 20
"""Reading pauses while a stream of one connection holds more than this."""
HELD_BYTES_LOW = 1 << 20

_scratch = memoryview(bytearray(READ_BYTES))


class Counters:
    """Bytes of one stream of one proxy, over all its connections."""

    __slots__ = ("discarded", "forwarded", "received")

    def __init__(self) -> None:
        self.received = 0
        self.forwarded = 0
        self.discarded = 0

    def document(self) -> dict[str, int]:
        """The JSON form."""
        return {"received": self.received, "forwarded": self.forwarded, "discarded": self.discarded}


class Owner(Protocol):
    """The connection that a pipe belongs to."""

    def source_broke(self, pipe: Pipe) -> None:
        """Reading failed with an error (RST)."""
        ...

    def sink_broke(self, pipe: Pipe) -> None:
        """Writing failed."""
        ...

    def ended(self, pipe: Pipe) -> None:
        """The end was delivered."""
        ...

    def ended_in_silence(self, pipe: Pipe) -> None:
        """The source ended while the stream is silenced: the sink must not learn it."""
        ...

    def close(self) -> None:
        """Close both sides."""
        ...

    def reset(self) -> None:
        """Close both sides with RST."""
        ...


class Pipe:
    """Moves one direction; also the last outlet of its stages and their host."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, counters: Counters) -> None:
        self.loop = loop
        self.owner = owner
        self.counters = counters
        self.source: socket.socket | None = None
        self.sink: socket.socket | None = None
        self.silent = False
        self.done = False
        self._stages: list[Stage] = []
        self._out: deque[memoryview] = deque()
        self._out_bytes = 0
        self._reading = False
        self._writing = False
        self.source_ended = False
        self._end_due = False
        self._close_at_end = False

    # -- the ends -------------------------------------------------------------------------

    def attach(self, source: socket.socket, sink: socket.socket | None) -> None:
        """Start moving bytes; without a sink the stream must be silent."""
        assert sink is not None or self.silent, "bytes with nowhere to go"
        self.source, self.sink = source, sink
        self._resume()

    def shut(self) -> None:
        """The connection is closed: touch the sockets no more."""
        self._pause()
        self._stop_writing()
        for stage in self._stages:
            stage.close()
        self._forget_output()
        self.source_ended = self.done = True

    # -- stages ---------------------------------------------------------------------------

    def add(self, stage: Stage, *, silences: bool) -> None:
        """Append a stage; one that silences also throws away all bytes that are here."""
        self._stages.append(stage)
        self._link()
        if silences:
            self.silent = True
            for each in self._stages:
                self.counters.discarded += each.drop()
            self._forget_output()
            self._stop_writing()
            self._resume()

    def take_out(self, stage: Stage) -> None:
        """Remove a stage; it hands on what it held."""
        stage.release()
        if stage in self._stages:
            self._stages.remove(stage)
        self._link()
        self._after_progress()

    def stages(self) -> list[Stage]:
        """The stages in order."""
        return list(self._stages)

    def _link(self) -> None:
        for stage, following in zip(self._stages, self._stages[1:], strict=False):
            stage.next = following
        if self._stages:
            self._stages[-1].next = self

    # -- reading --------------------------------------------------------------------------

    def _readable(self) -> None:
        assert self.source is not None
        try:
            count = self.source.recv_into(_scratch)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._pause()
            self.source_ended = True
            self.owner.source_broke(self)
            return
        if count == 0:
            self._pause()
            self.source_ended = True
            if self.silent:
                self.owner.ended_in_silence(self)
                return
            (self._stages[0] if self._stages else self).end()
            return
        self.counters.received += count
        if self.silent:
            self.counters.discarded += count
        elif self._stages:
            self._stages[0].push(bytes(_scratch[:count]))
            self._after_progress()
        else:
            self._write(_scratch[:count])

    def _pause(self) -> None:
        if self._reading and self.source is not None:
            self._reading = False
            self.loop.remove_reader(self.source)

    def _resume(self) -> None:
        if not self._reading and not self.source_ended and self.source is not None:
            self._reading = True
            self.loop.add_reader(self.source, self._readable)

    def _held(self) -> int:
        return self._out_bytes + sum(stage.held for stage in self._stages)

    def _after_progress(self) -> None:
        held = self._held()
        if held > HELD_BYTES_MAX:
            self._pause()
        elif held <= HELD_BYTES_LOW:
            self._resume()

    # -- writing: the last outlet ---------------------------------------------------------

    def push(self, data: bytes) -> None:
        """Bytes that passed all stages."""
        self._write(memoryview(data))
        self._after_progress()

    def end(self) -> None:
        """The end passed all stages; it follows the bytes that still wait."""
        self._end_due = True
        self._flush_end()

    def _write(self, data: memoryview) -> None:
        if self.done or self.silent or self.sink is None:
            self.counters.discarded += len(data)
            return
        if not self._out:
            try:
                sent = self.sink.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.counters.discarded += len(data)
                self.owner.sink_broke(self)
                return
            self.counters.forwarded += sent
            if sent == len(data):
                return
            data = data[sent:]
        self._out.append(memoryview(bytes(data)))
        self._out_bytes += len(data)
        self._start_writing()
        self._after_progress()

    def _writable(self) -> None:
        assert self.sink is not None
        try:
            while self._out:
                sent = self.sink.send(self._out[0])
                self.counters.forwarded += sent
                self._out_bytes -= sent
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                    return
                self._out.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.owner.sink_broke(self)
            return
        self._stop_writing()
        self._flush_end()
        self._after_progress()

    def _flush_end(self) -> None:
        if not self._end_due or self._out or self.done or self.silent:
            return
        self.done = True
        if self._close_at_end:
            self.owner.close()
            return
        if self.sink is not None:
            try:
                self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.owner.sink_broke(self)
                return
        self.owner.ended(self)

    def _start_writing(self) -> None:
        if not self._writing and self.sink is not None:
            self._writing = True
            self.loop.add_writer(self.sink, self._writable)

    def _stop_writing(self) -> None:
        if self._writing and self.sink is not None:
            self._writing = False
            self.loop.remove_writer(self.sink)

    def _forget_output(self) -> None:
        self.counters.discarded += self._out_bytes
        self._out.clear()
        self._out_bytes = 0

    def sink_is_gone(self) -> None:
        """Writing is over, reading goes on: the other direction is cut and must not notice."""
        self._stop_writing()
        self._forget_output()
        self.done = True

    # -- what stages may ask --------------------------------------------------------------

    def discarded(self, count: int) -> None:
        """A stage threw bytes away."""
        self.counters.discarded += count

    def close_at_end(self) -> None:
        """Close the connection when the end is delivered."""
        self._close_at_end = True

    def close(self) -> None:
        """Close the connection."""
        self.owner.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.owner.reset()
