"""The event stream's lines: heartbeats, gaps, slow readers, the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from scheduler.api.events import Events
from scheduler.changelog import Changelog


class Response:
    """Collects lines; can be made slow."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.news = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.may_write.wait()
        self.lines += [json.loads(line) for line in data.splitlines()]
        self.news.set()

    async def got(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            while len(self.lines) < count:
                self.news.clear()
                await self.news.wait()
        return self.lines


class Services:
    def __init__(self, changes_max: int = 1000) -> None:
        self.changelog = Changelog(changes_max=changes_max)


def start(services: Services, response: Response, since: int, **options: Any) -> tuple[Events, asyncio.Task[None]]:
    events = Events(services, **options)  # type: ignore[arg-type]
    return events, asyncio.create_task(events._follow(response, since))  # type: ignore[arg-type]


async def test_changes_come_in_order_then_heartbeats_then_the_end() -> None:
    services, response = Services(), Response()
    for index in (1, 2):
        services.changelog.add(index, [("job", {"job": f"d/{index}"})])
    events, task = start(services, response, 0, heartbeat_s=0.01)
    lines = await response.got(4)
    assert [(line["k"], line["index"]) for line in lines[:4]] == [
        ("job", 1), ("job", 2), ("heartbeat", 2), ("heartbeat", 2),
    ]  # fmt: skip
    events.close()
    await task
    assert (lines[-1]["k"], lines[-1]["index"]) == ("end", 2)


async def test_a_reader_of_forgotten_changes_is_told_of_the_gap() -> None:
    services, response = Services(changes_max=2), Response()
    for index in range(1, 6):
        services.changelog.add(index, [("job", {})])
    events, task = start(services, response, 1)
    lines = await response.got(3)
    assert [(line["k"], line["index"]) for line in lines] == [("gap", 3), ("job", 4), ("job", 5)]
    events.close()
    await task


async def test_a_reader_overtaken_by_the_ring_is_dropped_with_a_last_line() -> None:
    services, response = Services(changes_max=3), Response()
    services.changelog.add(1, [("job", {})])
    _, task = start(services, response, 0)
    await response.got(1)
    response.may_write.clear()
    services.changelog.add(2, [("job", {})])
    services.changelog.wake()
    for index in range(3, 10):
        await asyncio.sleep(0)
        services.changelog.add(index, [("job", {})])
    response.may_write.set()
    async with asyncio.timeout(5):
        await task
    last = response.lines[-1]
    assert last["k"] == "dropped"
    assert last["hint"] == f"go on with ?since={last['index']}"
