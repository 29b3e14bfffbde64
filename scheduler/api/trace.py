"""The trace, through the API: which files there are, and their lines.

Owns: naming and streaming the files of one trace directory.  Must not know: what the lines mean.

A trace directory holds the files of every process that writes there: this replica's, and in a cluster of containers
those of agents and proxy too.  A file only grows; it is given up to its last whole line, so
``?offset=`` the bytes already had goes on where an earlier answer ended.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from cluster.http import Call
from cluster.network import Request
from raft.errors import Overloaded
from scheduler.errors import TraceNotFound

FILES_MAX = 10_000
STREAMS_MAX = 8
CHUNK_BYTES = 256 << 10
LINE_BYTES_MAX = 1 << 20
WRITE_S = 10.0
"""A reader that takes nothing for this long is dropped."""
FILE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}-[0-9a-z]{1,32}(\.[0-9]{1,6})?\.jsonl")
MEDIA = "application/x-ndjson"


class TraceQuery(Struct, frozen=True):
    """Where to go on."""

    offset: Annotated[int, Meta(ge=0, le=1 << 50)] = 0
    """Bytes of the file that the reader has."""


class TraceFiles:
    """Handlers.  `directory`: of the trace; None = this replica writes none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._open = 0

    async def ls(self, call: Call) -> dict[str, Any]:
        """All files with their sizes."""
        return {"v": 1, "files": await asyncio.to_thread(self._list)}

    async def stream(self, call: Call) -> None:
        """One file from ``?offset=`` to its last whole line."""
        name, query = call.path["file"], call.query
        if self._open >= STREAMS_MAX:
            raise Overloaded(f"{STREAMS_MAX} trace files are being read already", hint="ask again, or another replica")
        self._open += 1
        try:
            descriptor = await asyncio.to_thread(self._open_file, name)
            try:
                await self._send(call.request, descriptor, query.offset)
            finally:
                os.close(descriptor)
        finally:
            self._open -= 1

    async def _send(self, request: Request, descriptor: int, offset: int) -> None:
        end = await asyncio.to_thread(whole_lines_end, descriptor)
        try:
            stream = await request.begin(
                media=MEDIA, headers={"Cache-Control": "no-store"}, length=max(0, end - offset)
            )
            while offset < end:
                data = await asyncio.to_thread(os.pread, descriptor, min(CHUNK_BYTES, end - offset), offset)
                if not data:
                    raise ConnectionError("the file was cut while it was read")
                async with asyncio.timeout(WRITE_S):
                    await stream.write(data)
                offset += len(data)
            await asyncio.wait_for(stream.end(), WRITE_S)
        except (ConnectionError, TimeoutError):
            request.abort()  # the reader sees the answer end before its length

    def _list(self) -> list[dict[str, Any]]:
        if self._directory is None or not self._directory.is_dir():
            return []
        with os.scandir(self._directory) as entries:
            found: list[dict[str, Any]] = [
                {"name": entry.name, "bytes": entry.stat(follow_symlinks=False).st_size}
                for entry in entries
                if FILE_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
        return sorted(found, key=lambda file: file["name"])[:FILES_MAX]

    def _open_file(self, name: str) -> int:
        if self._directory is None or not FILE_NAME.fullmatch(name):
            raise _unknown(name)
        try:
            return os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise _unknown(name) from None


def whole_lines_end(descriptor: int) -> int:
    """Where the last whole line of a file ends; 0 when it has none within its last MiB."""
    size = os.fstat(descriptor).st_size
    position = size
    while position > 0 and size - position < LINE_BYTES_MAX:
        start = max(0, position - CHUNK_BYTES)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _unknown(name: str) -> TraceNotFound:
    return TraceNotFound(f"there is no trace file {name[:80]!r} here", hint="GET /v1/trace lists them")
