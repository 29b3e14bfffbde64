"""Workload output where the sandboxer's workloads write it.

Owns: reading the files of one agent directory.  Must not know: who asks, or how output gets there.

The layout is ``<agent dir>/allocations/<attempt>/{stdout,stderr}``; offsets never go back, the oldest
part of a long stream is punched out and reads as a hole.  What was punched out meanwhile is skipped
up to the next whole line; a file that was replaced or cut short is read from its beginning.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

from agents.logs import LINE_BYTES_MAX, Chunk, Cursor, Place, split_lines
from agents.sandboxer.protocol import OUTPUT_DIRECTORY, directory_name
from scheduler.session import LogLine

STREAMS = ("stdout", "stderr")
CHUNK_BYTES = 256 << 10
"""Read of one stream at a time, so that an answer stays well below a frame."""


class LogFiles:
    """The output files below one agent directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / OUTPUT_DIRECTORY

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
