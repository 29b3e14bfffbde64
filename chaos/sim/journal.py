"""The sandboxer's journal in the simulator: the child that writes it, on the machine's disk.

Owns: what is between `append` and `durable`, and what a dead sandboxer's child still writes.
Must not know: what the records mean; their form is `agents.sandboxer.journal_file`'s.

As with the real one, the child is a process of its own: what was sent to it before the sandboxer died is written, and
the next sandboxer waits for that.  When a write fails the child ends, starts are refused, and another is started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from agents.sandboxer import protocol
from agents.sandboxer.journal import RESTART_S
from agents.sandboxer.journal_file import Contents, Record, line_of, parse, torn_bytes
from agents.sandboxer.journal_writer import BATCH_MAX
from chaos.sim.host import Process, ProcessHost, SimHost
from chaos.sim.small_files import read_file, replace_file
from raft.protocols import Disk, File

DIRECTORY: Final = "sandboxer"
SEND_NS: Final = 40_000
"""From the sandboxer to its child, and back."""


def read_journal(disk: Disk) -> Contents:
    """See `journal_file.read`."""
    return parse(read_file(disk, protocol.JOURNAL_NAME) or b"")


def rewrite_journal(disk: Disk, records: list[Record]) -> None:
    """See `journal_file.rewrite`."""
    replace_file(disk, protocol.JOURNAL_NAME, b"".join(line_of(record) for record in records))


class Journal:
    """The sandboxer's end; satisfies `surroundings.Journal`.

    Args:
        machine: whose disk it is.
        context: of the sandboxer's life.
        durable: told of the last durable sequence.
        failed: told why nothing can be made durable.
        recovered: told that it works again.
    """

    pid = 0

    def __init__(
        self,
        machine: SimHost,
        context: Context,
        *,
        durable: Callable[[int], None],
        failed: Callable[[str], None],
        recovered: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._context = context
        self._on_durable, self._on_failed, self._on_recovered = durable, failed, recovered
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._broken = False
        self._child: JournalChild | None = None
        self.process: Process | None = None
        """The child that writes, or wrote last."""

    def append(self, sequence: int, record: Record) -> None:
        """Have a record made durable."""
        item = (sequence, line_of(record))
        self._unacknowledged.append(item)
        if self._child is not None:
            self._child.send(item)

    def open(self) -> None:
        """Start a child, and send it what was not acknowledged."""
        child = self._child = JournalChild(self)
        self.process = self._machine.spawn("journal", child.main)
        for item in self._unacknowledged:
            child.send(item)

    def close(self) -> None:
        """End the child once everything is written."""
        if self._child is not None:
            self._child.parent_ended()
            self._child = None

    def said(self, child: JournalChild, kind: str, value: Any) -> None:
        """The child says something; called in its life, heard in ours."""
        loop = self._machine.world.loop
        loop.at(loop.now + SEND_NS, self._hear, child, kind, value, context=self._context)

    def _hear(self, child: JournalChild, kind: str, value: Any) -> None:
        if child is not self._child:
            return
        if kind == "durable":
            while self._unacknowledged and self._unacknowledged[0][0] <= value:
                self._unacknowledged.popleft()
            self._on_durable(value)
        elif kind == "ready" and self._broken:
            self._broken = False
            self._on_recovered()
        elif kind == "failed":
            self._child = None
            if not self._broken:
                self._broken = True
                self._on_failed(value)
            self._machine.world.loop.call_later(RESTART_S, self._open_again, context=self._context)

    def _open_again(self) -> None:
        if self._child is None:
            self.open()


class JournalChild:
    """One life of the child."""

    def __init__(self, parent: Journal) -> None:
        self._parent = parent
        self._queue: deque[tuple[int, bytes]] = deque()
        self._parent_gone = False
        self._file: File | None = None
        self._size = 0
        self._busy = False
        self._host: ProcessHost
        self._worker: Any = None
        self._done: Any = None

    async def main(self, host: ProcessHost) -> None:
        """Write until the sandboxer is gone."""
        self._host = host
        self._done = host.machine.world.loop.create_future()
        self._worker = host.threads.worker("journal", self._write, _nothing)
        self._worker.start()
        self._worker.submit(True)
        self._busy = True
        await self._done

    def send(self, item: tuple[int, bytes]) -> None:
        """Take a record from the sandboxer; what was sent arrives, whoever dies meanwhile."""
        self._queue.append(item)
        self._go_on()

    def parent_ended(self) -> None:
        """The sandboxer is gone: write what came, then end."""
        self._parent_gone = True
        self._go_on()

    def _go_on(self) -> None:
        if self._worker is None or self._busy or self._done.done():
            return
        if self._queue:
            self._busy = True
            self._worker.submit(False)
        elif self._parent_gone:
            self._end()

    def _write(self, first: bool) -> None:
        """One batch, in the child's thread."""
        self._busy = False
        try:
            if first:
                self._open()
            elif self._queue:
                self._batch()
        except OSError as error:
            self._parent.said(self, "failed", str(error))
            self._queue.clear()
            self._end()
            return
        self._go_on()

    def _open(self) -> None:
        disk = self._host.disk(DIRECTORY)
        data = read_file(disk, protocol.JOURNAL_NAME) or b""
        if torn := torn_bytes(data):
            replace_file(disk, protocol.JOURNAL_NAME, data[:-torn])
        self._file = disk.open(protocol.JOURNAL_NAME, create=True)
        disk.sync_directory()
        self._size = self._file.size()
        self._parent.said(self, "ready", None)

    def _batch(self) -> None:
        assert self._file is not None, "opened first"
        batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
        data = b"".join(line for _, line in batch)
        self._file.write_at(self._size, data)
        self._size += len(data)
        self._file.sync()
        self._parent.said(self, "durable", batch[-1][0])

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


def _nothing() -> None:
    """The thread's end is of no interest."""
