"""The child that writes the journal and the trace.

Owns: appending, syncing, acknowledging.  Must not know: what is written.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Final, NoReturn

from agents.sandboxer import linux
from agents.sandboxer.journal_file import JournalError, lock, torn_bytes

RECORD: Final = b"J"
TRACE: Final = b"T"
READY: Final = b"R"
DURABLE: Final = b"D"
FAILED: Final = b"F"
MESSAGE_BYTES_MAX: Final = 128 << 10
BATCH_MAX: Final = 512


class Writer:
    """The child: appends and syncs, nothing else."""

    def __init__(self, sock: socket.socket, path: str, trace_path: str | None) -> None:
        self._sock = sock
        self._path = path
        self._trace_path = trace_path

    def run(self) -> NoReturn:
        """Write until the sandboxer is gone; never returns."""
        status = 1
        try:
            self._settle()
            self._serve(*self._open())
            status = 0
        except (OSError, JournalError) as error:
            with contextlib.suppress(OSError):
                self._sock.send(FAILED + str(error).encode()[:1000], socket.MSG_NOSIGNAL)
        finally:
            os._exit(status)

    def _settle(self) -> None:
        """Outlive the signals meant for the sandboxer; hold none of its descriptors."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        kept = self._sock.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        linux.set_name("skerry-journal")

    def _open(self) -> tuple[int, int]:
        journal = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        lock(journal, self._path)
        size = os.fstat(journal).st_size
        tail = os.pread(journal, min(size, MESSAGE_BYTES_MAX), max(0, size - MESSAGE_BYTES_MAX))
        if torn := torn_bytes(tail):
            os.ftruncate(journal, size - torn)
        trace = -1
        if self._trace_path is not None:
            trace = os.open(self._trace_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return journal, trace

    def _serve(self, journal: int, trace: int) -> None:
        self._sock.send(READY)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            poll.poll()
            lines, traced, last, ended = self._batch()
            if traced and trace >= 0:
                with contextlib.suppress(OSError):  # a full disk costs the trace, not the workloads
                    os.write(trace, b"".join(traced))
            if lines:
                _write_all(journal, b"".join(lines))
                os.fdatasync(journal)
                with contextlib.suppress(OSError):
                    self._sock.send(b"%s%d" % (DURABLE, last), socket.MSG_NOSIGNAL)
            if ended:
                return

    def _batch(self) -> tuple[list[bytes], list[bytes], int, bool]:
        lines: list[bytes] = []
        traced: list[bytes] = []
        last = 0
        for _ in range(BATCH_MAX):
            try:
                message = self._sock.recv(MESSAGE_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return lines, traced, last, False
            except ConnectionError:
                message = b""
            if not message:
                return lines, traced, last, True
            if message[:1] == RECORD:
                sequence, _, line = message[1:].partition(b" ")
                lines.append(line)
                last = int(sequence)
            else:
                traced.append(message[1:])
        return lines, traced, last, False


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
