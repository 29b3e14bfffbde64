"""Workload output as lines: read and followed by cursor.

Owns: cursors, the splitting of bytes into lines, waiting for more.
Must not know: who asks, sessions, or where output lies (`agents.log_files`).

A cursor names the attempt and, per stream, inode and offset.  The two streams are separate files:
order within each is kept, between them only as far as they were written while being read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from msgspec import Struct

from scheduler.session import LogLine, LogsReply, LogsRequest

LINE_BYTES_MAX = 16 << 10
WAIT_MS_MAX = 30_000
POLL_S = 0.1

_ALLOCATION = re.compile(r"[a-z0-9-]{1,63}/[a-z0-9-]{1,63}\.[0-9]{1,9}")
_CURSOR = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20}){4}")


class Place(Struct, frozen=True):
    """Where reading of one stream goes on; inode 0 = at its beginning."""

    inode: int = 0
    offset: int = 0


class Cursor(Struct, frozen=True):
    """Where reading of an allocation goes on."""

    epoch: int
    places: tuple[Place, Place] = (Place(), Place())


class Chunk(Struct, frozen=True):
    """What one read found; `exhausted` = all that was written is read."""

    lines: tuple[LogLine, ...]
    cursor: Cursor
    exhausted: bool


def cursor_text(cursor: Cursor) -> str:
    """The cursor as the API shows it."""
    out, err = cursor.places
    return f"{cursor.epoch}.{out.inode}.{out.offset}.{err.inode}.{err.offset}"


def cursor_from(text: str) -> Cursor | None:
    """Inverse of `cursor_text`; None when it is none."""
    if not _CURSOR.fullmatch(text):
        return None
    epoch, *rest = (int(part) for part in text.split("."))
    return Cursor(epoch, (Place(rest[0], rest[1]), Place(rest[2], rest[3])))


def split_lines(data: bytes, *, final: bool, lines_max: int) -> tuple[list[str], int]:
    """Complete lines of `data` and how many bytes they take.

    A line longer than `LINE_BYTES_MAX` comes in pieces of that size, cut between characters.  The
    end without a newline counts only if `final`: nothing will be appended to it.
    """
    lines: list[str] = []
    at = 0
    while at < len(data) and len(lines) < lines_max:
        end = data.find(b"\n", at, at + LINE_BYTES_MAX + 1)
        if end >= 0:
            piece, after = data[at:end].removesuffix(b"\r"), end + 1
        elif len(data) - at > LINE_BYTES_MAX:
            after = at + _whole_characters(data, at, LINE_BYTES_MAX)
            piece = data[at:after]
        elif final:
            piece, after = data[at:], len(data)
        else:
            break
        lines.append(piece.decode("utf-8", errors="replace"))
        at = after
    return lines, at


def _whole_characters(data: bytes, at: int, length: int) -> int:
    """The largest size up to `length` that does not cut a UTF-8 character (as far as it is one)."""
    for back in range(4):
        if data[at + length - back] & 0xC0 != 0x80:
            return length - back
    return length


ReadOutput = Callable[[str, Cursor | None, int, tuple[int, ...]], Chunk | None]
"""(allocation, cursor, most lines, live epochs) → what is there; None = no output of this allocation here.  Blocks."""


class Logs:
    """Answers log requests from what `read` finds.

    `live_epochs(allocation)` names attempts that are starting or running; it is asked *before*
    files are read, so that "ended" is never said while output could still come.
    """

    def __init__(self, read: ReadOutput, live_epochs: Callable[[str], tuple[int, ...]]) -> None:
        self._read = read
        self._live_epochs = live_epochs

    async def answer(self, request: LogsRequest) -> LogsReply:
        """Lines after the request's cursor, held back up to `wait_ms` while there are none.

        Errors in the reply: ``bad-allocation``, ``bad-cursor``, ``no-logs`` (nothing of it here).
        """
        if not _ALLOCATION.fullmatch(request.allocation):
            return LogsReply(request.id, (), request.cursor, True, "bad-allocation")
        cursor = cursor_from(request.cursor) if request.cursor else None
        if request.cursor and cursor is None:
            return LogsReply(request.id, (), request.cursor, True, "bad-cursor")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(request.wait_ms, WAIT_MS_MAX) / 1000
        while True:
            live = self._live_epochs(request.allocation)
            found = await asyncio.to_thread(self._read, request.allocation, cursor, request.lines_max, live)
            if found is None and not live:
                return LogsReply(request.id, (), request.cursor, True, "no-logs")
            text = cursor_text(found.cursor) if found else request.cursor
            ended = found is not None and found.exhausted and not live
            if ended or (found is not None and found.lines) or loop.time() >= deadline:
                return LogsReply(request.id, found.lines if found else (), text, ended, "")
            cursor = found.cursor if found else cursor
            await asyncio.sleep(min(POLL_S, max(0.0, deadline - loop.time())))
