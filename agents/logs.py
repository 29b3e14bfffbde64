"""Workload output as lines: read and followed by cursor.

Owns: cursors and the splitting of bytes into lines.
Must not know: who asks, sessions, or how output gets into the files.  The sandboxer's layout is
``<agent dir>/allocations/<attempt>/{stdout,stderr}``; offsets never go back, the oldest part of a
long stream is punched out and reads as a hole.

A cursor names the attempt and, per stream, inode and offset.  What was punched out meanwhile is
skipped up to the next whole line; a file that was replaced or cut short is read from its beginning.
The two streams are separate files: order within each is kept, between them only as far as they
were written while being read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from agents.sandboxer.protocol import OUTPUT_DIRECTORY, directory_name
from scheduler.session import LogLine, LogsReply, LogsRequest

STREAMS = ("stdout", "stderr")
LINE_BYTES_MAX = 16 << 10
CHUNK_BYTES = 256 << 10
"""Read of one stream at a time, so that an answer stays well below a frame."""
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


class Logs:
    """Answers log requests from the files of one agent directory.

    `live_epochs(allocation)` names attempts that are starting or running; it is asked *before*
    files are read, so that "ended" is never said while output could still come.
    """

    def __init__(self, directory: Path, live_epochs: Callable[[str], tuple[int, ...]]) -> None:
        self._directory = directory / OUTPUT_DIRECTORY
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
            found = await asyncio.to_thread(self.read, request.allocation, cursor, request.lines_max, live)
            if found is None and not live:
                return LogsReply(request.id, (), request.cursor, True, "no-logs")
            text = cursor_text(found.cursor) if found else request.cursor
            ended = found is not None and found.exhausted and not live
            if ended or (found is not None and found.lines) or loop.time() >= deadline:
                return LogsReply(request.id, found.lines if found else (), text, ended, "")
            cursor = found.cursor if found else cursor
            await asyncio.sleep(min(POLL_S, max(0.0, deadline - loop.time())))

    def read(self, allocation: str, cursor: Cursor | None, lines_max: int, live: tuple[int, ...]) -> Chunk | None:
        """Read files once (blocking); None = no output of this allocation here.

        Without a cursor it begins with the newest attempt; an exhausted older attempt is followed
        by the next one.
        """
        attempts = self._attempts(allocation)
        if not attempts:
            return None
        cursor = cursor or Cursor(attempts[-1])
        while True:
            chunk = self._read_attempt(allocation, cursor, lines_max, final=cursor.epoch not in live)
            later = [epoch for epoch in attempts if epoch > cursor.epoch]
            if chunk.lines or not chunk.exhausted or not later or cursor.epoch in live:
                done = chunk.exhausted and not later
                return Chunk(chunk.lines, chunk.cursor, done)
            cursor = Cursor(later[0])

    def _attempts(self, allocation: str) -> list[int]:
        """Epochs with a directory, ascending."""
        prefix = directory_name(allocation, 0).removesuffix("0")
        names = [entry.name for entry in _entries(self._directory) if entry.name.startswith(prefix)]
        return sorted(int(name.removeprefix(prefix)) for name in names if name.removeprefix(prefix).isdigit())

    def _read_attempt(self, allocation: str, cursor: Cursor, lines_max: int, *, final: bool) -> Chunk:
        directory = self._directory / directory_name(allocation, cursor.epoch)
        lines: list[LogLine] = []
        places: list[Place] = []
        exhausted = True
        for stream, place in zip(STREAMS, cursor.places, strict=True):
            room = lines_max - len(lines)
            if stream == STREAMS[0] and lines_max > 1 and self._has_more(directory, STREAMS[1], cursor.places[1]):
                room = lines_max - lines_max // 2
            got, place, at_end = _read_stream(directory, stream, place, room, final=final)
            lines.extend(got)
            places.append(place)
            exhausted = exhausted and at_end
        return Chunk(tuple(lines), Cursor(cursor.epoch, (places[0], places[1])), exhausted)

    def _has_more(self, directory: Path, stream: str, place: Place) -> bool:
        """Whether the other stream needs its share of the lines."""
        _, _, at_end = _read_stream(directory, stream, place, 0, final=True)
        return not at_end


def _read_stream(
    directory: Path, stream: str, place: Place, lines_max: int, *, final: bool
) -> tuple[list[LogLine], Place, bool]:
    """Lines from `place` on, the new place, and whether everything written is read."""
    try:
        handle = os.open(directory / stream, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return [], place, True
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return [], place, True
        wanted = place.offset if place.inode == about.st_ino and place.offset <= about.st_size else 0
        offset = _next_data(handle, wanted, about.st_size)
        data = os.pread(handle, CHUNK_BYTES, offset)
    finally:
        os.close(handle)
    if offset > wanted:
        cut = _beginning_cut(data)
        offset, data = offset + cut, data[cut:]
    whole = offset + len(data) >= about.st_size
    texts, taken = split_lines(data, final=final and whole, lines_max=lines_max)
    t = min(time.time(), about.st_mtime)
    at_end = whole and (taken == len(data) or (lines_max > len(texts) and not final))
    return [LogLine(t, stream, text) for text in texts], Place(about.st_ino, offset + taken), at_end


def _next_data(handle: int, offset: int, size: int) -> int:
    """`offset`, or where data goes on behind a punched hole."""
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset


def _beginning_cut(data: bytes) -> int:
    """Bytes of the line whose beginning was punched out; 0 when it is too long to be one."""
    return data.find(b"\n", 0, LINE_BYTES_MAX) + 1


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
