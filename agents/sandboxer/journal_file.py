"""The journal's file: one checksummed JSON record a line.

Owns: its form, reading it at the start, replacing it.  Must not know: what records mean.

A torn last line is what a crash leaves, and is ignored.  Damage elsewhere is counted, and the file
can be kept aside; every intact record is still used.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import zlib
from dataclasses import dataclass
from typing import Any, Final

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


def torn_bytes(tail: bytes) -> int:
    """Bytes of a last line that was not written to its end, to be cut before anything is appended."""
    return len(tail) - (tail.rfind(b"\n") + 1)


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
            lock(file.fileno(), path)
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


def lock(fd: int, path: str) -> None:
    """Take the file, waiting up to `LOCK_WAIT_S`; a process's lock.  Raises JournalError."""
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
