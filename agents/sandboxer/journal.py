"""The sandboxer's memory on disk: its end of the child that writes it.

Owns: sending records and trace lines to the child, hearing of durability and failure, starting it
anew.  Must not know: what the records mean, or how they lie in the file.

The sandboxer sends records over a socket and goes on; the child writes what waits as one batch,
syncs, and answers with the last durable sequence.  Trace lines take the same way without a sync.
When the sandboxer dies the child writes what it was sent, then ends.  When the child fails, the
sandboxer hears why, and starts another; what was not acknowledged is sent again (records are
idempotent).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from agents.sandboxer.journal_file import LOCK_WAIT_S, Record, line_of
from agents.sandboxer.journal_writer import DURABLE, FAILED, MESSAGE_BYTES_MAX, READY, RECORD, TRACE, Writer
from agents.sandboxer.loop import Loop

WAITING_MAX: Final = 100_000
TRACE_WAITING_MAX: Final = 10_000
RESTART_S: Final = 0.5


class Journal:
    """The sandboxer's end.  Callbacks tell of durability, failure and recovery."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        trace_path: str | None,
        *,
        durable: Callable[[int], None],
        failed: Callable[[str], None],
        recovered: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._path = path
        self._trace_path = trace_path
        self._on_durable, self._on_failed, self._on_recovered = durable, failed, recovered
        self._unsent: deque[tuple[int, bytes]] = deque()
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._trace_lines: deque[bytes] = deque()
        self._sock: socket.socket | None = None
        self._pid = 0
        self._broken = False
        self._closing = False

    @property
    def pid(self) -> int:
        """The child's; 0 while there is none."""
        return self._pid

    def append(self, sequence: int, record: Record) -> None:
        """Have a record made durable; `sequence` rises by one each."""
        self._unsent.append((sequence, b"%s%d %s" % (RECORD, sequence, line_of(record))))
        if len(self._unacknowledged) + len(self._unsent) > WAITING_MAX and not self._broken:
            self._fail(f"{WAITING_MAX} records wait for the disk")
        self._send()

    def trace(self, line: bytes) -> None:
        """Have a trace line written; dropped when very many wait."""
        if len(self._trace_lines) < TRACE_WAITING_MAX:
            self._trace_lines.append(TRACE + line)
            self._send()

    def open(self) -> None:
        """Start the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            Writer(theirs, self._path, self._trace_path).run()
        theirs.close()
        ours.setblocking(False)
        self._sock = ours
        self._unsent = self._unacknowledged + self._unsent
        self._unacknowledged = deque()
        self._loop.add_reader(ours.fileno(), self._readable)
        self._send()

    def close(self) -> None:
        """Write everything, end the child, wait for it."""
        self._closing = True
        if self._sock is not None:
            self._sock.setblocking(True)
            self._sock.settimeout(LOCK_WAIT_S)
            with contextlib.suppress(OSError):
                self._send_all()
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._reap()

    def _send(self) -> None:
        if self._sock is None:
            return
        try:
            self._send_all()
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._send)
        except OSError:
            return  # the reader hears of its end
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _send_all(self) -> None:
        assert self._sock is not None, "only with a child"
        while self._unsent:
            self._sock.send(self._unsent[0][1], socket.MSG_NOSIGNAL)
            self._unacknowledged.append(self._unsent.popleft())
        while self._trace_lines:
            self._sock.send(self._trace_lines[0], socket.MSG_NOSIGNAL)
            self._trace_lines.popleft()

    def _readable(self) -> None:
        try:
            while self._sock is not None:  # what a message brings about may close it
                message = self._sock.recv(MESSAGE_BYTES_MAX)
                if not message:
                    break
                self._take(message)
        except BlockingIOError:
            return
        except OSError:
            pass
        if self._sock is not None:
            self._child_ended()

    def _take(self, message: bytes) -> None:
        kind, body = message[:1], message[1:]
        if kind == DURABLE:
            sequence = int(body)
            while self._unacknowledged and self._unacknowledged[0][0] <= sequence:
                self._unacknowledged.popleft()
            self._on_durable(sequence)
        elif kind == FAILED:
            self._fail(body.decode(errors="replace"))
        elif kind == READY and self._broken:
            self._broken = False
            self._on_recovered()

    def _fail(self, why: str) -> None:
        if not self._broken:
            self._broken = True
            self._on_failed(why)

    def _child_ended(self) -> None:
        assert self._sock is not None, "only with a child"
        self._loop.remove(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._reap()
        if not self._closing:
            self._fail("the journal's process ended")
            self._loop.call_later(RESTART_S, self.open)

    def _reap(self) -> None:
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0
