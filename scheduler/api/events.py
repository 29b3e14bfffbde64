"""Events: committed changes as JSON lines, as they happen.

Owns: the stream's lines and what ends it.  Must not know: what a change means.

Each line has ``k`` and ``index``.  Besides the changes themselves: ``heartbeat`` while nothing
happens, ``gap`` when earlier changes are no longer known, ``dropped`` as the last line for a
reader who was too slow, ``end`` when the replica stops.  Reading goes on with ``?since=`` the
last index seen.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cluster.http import Call
from cluster.network import Outflow
from raft.errors import Overloaded
from scheduler.api.services import Services

STREAMS_MAX = 64
HEARTBEAT_S = 5.0
WRITE_S = 10.0
"""A reader that takes nothing for this long is dropped."""
LINES_MAX = 512
MEDIA = "application/x-ndjson"
INDEX_MAX = 1 << 62


class EventsQuery(Struct, frozen=True):
    """Where to begin."""

    since: Annotated[int, Meta(ge=0, le=INDEX_MAX)] = 0
    """The last log index that the reader has seen."""


class Events:
    """Handler."""

    def __init__(self, services: Services, *, heartbeat_s: float = HEARTBEAT_S, write_s: float = WRITE_S) -> None:
        self._services = services
        self._open = 0
        self._heartbeat_s = heartbeat_s
        self._write_s = write_s
        self._stopping = asyncio.Event()

    def close(self) -> None:
        """End all streams with a clear last line."""
        self._stopping.set()
        self._services.changelog.wake()

    async def stream(self, call: Call) -> None:
        """Follow the changes of this replica after ``?since=``."""
        query: EventsQuery = call.query
        if self._open >= STREAMS_MAX:
            raise Overloaded(f"{STREAMS_MAX} event streams are open already", hint="ask another replica")
        self._open += 1
        try:
            stream = await call.request.begin(media=MEDIA, headers={"Cache-Control": "no-store"})
            await self._follow(stream, query.since)
            await asyncio.wait_for(stream.end(), self._write_s)
        except (ConnectionError, TimeoutError):
            call.request.abort()  # the reader is gone, or takes nothing at all
        finally:
            self._open -= 1

    async def _follow(self, stream: Outflow, since: int) -> None:
        changelog = self._services.changelog
        position = min(since, changelog.last_index)
        if since > changelog.last_index:
            await self._write(stream, [{"k": "gap", "index": changelog.last_index, "why": "ahead of this replica"}])
        elif since < changelog.forgotten_index:
            position = changelog.forgotten_index
            await self._write(stream, [{"k": "gap", "index": position, "since": since, "why": "no longer known"}])
        while not self._stopping.is_set():
            if position < changelog.forgotten_index:
                await self._write(
                    stream,
                    [{"k": "dropped", "index": position, "why": "too slow", "hint": f"go on with ?since={position}"}],
                )
                return
            found = changelog.after(position, LINES_MAX)
            if found:
                await self._write(stream, [{"k": kind, "index": index, **fields} for index, (kind, fields) in found])
                position = found[-1][0]
                continue
            position = changelog.last_index
            if not await self._woken(position):
                await self._write(stream, [{"k": "heartbeat", "index": position}])
        await self._write(stream, [{"k": "end", "index": position, "why": "the replica stops"}])

    async def _woken(self, position: int) -> bool:
        """Wait for a change, the end, or until a heartbeat is due (False)."""
        waits = [
            asyncio.ensure_future(self._services.changelog.wait(position, self._heartbeat_s)),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return any(task.result() for task in done)

    async def _write(self, stream: Outflow, lines: list[dict[str, Any]]) -> None:
        data = b"".join(msgspec.json.encode({"v": 1, **line}) + b"\n" for line in lines)
        async with asyncio.timeout(self._write_s):
            await stream.write(data)
