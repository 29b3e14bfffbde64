"""The sandboxer's memory on disk, written by a small child.

Owns: the journal file (one checksummed JSON record a line), the child that appends and syncs it,
and reading it at the start.  Must not know: what the records mean to the core, but for `forget`.

The sandboxer sends records over a socket and goes on; the child writes what waits as one batch,
syncs, and answers with the last durable sequence.  Trace lines take the same way without a sync.
When the sandboxer dies the child writes what it was sent, then ends.  When the child fails, the
sandboxer hears why, and starts another; what was not acknowledged is sent again (records are
idempotent).

A torn last line is what a crash leaves, and is cut.  Damage elsewhere is kept aside
(``sandboxer.journal.damaged``) and reported; every intact record is still used.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from agents.sandboxer import linux
from agents.sandboxer.loop import Loop

RECORD: Final = b"J"
TRACE: Final = b"T"
READY: Final = b"R"
DURABLE: Final = b"D"
FAILED: Final = b"F"
MESSAGE_BYTES_MAX: Final = 128 << 10
BATCH_MAX: Final = 512
WAITING_MAX: Final = 100_000
TRACE_WAITING_MAX: Final = 10_000
RESTART_S: Final = 0.5
LOCK_WAIT_S: Final = 10.0

Record = dict[str, Any]


class JournalError(Exception):
    """The journal cannot be opened."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal file holds."""

    records: list[Record]
    damaged: int
    """Lines that are not intact, the torn last one left out."""


def line_of(record: Record) -> bytes:
    """A record as a line: CRC-32 in hexadecimal, a space, JSON."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse(data: bytes) -> Contents:
    """Read a journal's bytes."""
    records: list[Record] = []
    damaged = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        record = _record_of(line)
        if record is not None:
            records.append(record)
        elif line and number < len(lines) - 1:
            damaged += 1
    return Contents(records, damaged)


def _record_of(line: bytes) -> Record | None:
    checksum, _, body = line.partition(b" ")
    try:
        if len(checksum) != 8 or int(checksum, 16) != zlib.crc32(body):
            return None
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def read(path: str) -> Contents:
    """Read the journal at `path`, waiting for a former child that still writes it; empty if there is none.

    Raises:
        JournalError: it cannot be read, or is still locked after `LOCK_WAIT_S`.
    """
    try:
        with open(path, "r+b") as file:
            _lock(file.fileno(), path)
            return parse(file.read())
    except FileNotFoundError:
        return Contents([], 0)
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error


def rewrite(path: str, records: list[Record], *, keep_damaged: bool) -> None:
    """Replace the journal by `records`, atomically and durably; OSError leaves the old one."""
    if keep_damaged:
        with contextlib.suppress(FileExistsError):
            os.link(path, f"{path}.damaged")
    aside = f"{path}.new"
    with open(aside, "wb") as file:
        file.write(b"".join(line_of(record) for record in records))
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lock(fd: int, path: str) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > deadline:
                raise JournalError(f"{path} is still being written by another process") from error
            time.sleep(0.005)
        else:
            return


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
            _Writer(theirs, self._path, self._trace_path).run()
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


class _Writer:
    """The child: appends and syncs, nothing else."""

    def __init__(self, sock: socket.socket, path: str, trace_path: str | None) -> None:
        self._sock = sock
        self._path = path
        self._trace_path = trace_path

    def run(self) -> NoReturn:
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
        _lock(journal, self._path)
        size = os.fstat(journal).st_size
        tail = os.pread(journal, min(size, MESSAGE_BYTES_MAX), max(0, size - MESSAGE_BYTES_MAX))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(journal, size - (len(tail) - (tail.rfind(b"\n") + 1)))
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
