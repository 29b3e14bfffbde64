"""The simulated world from outside: processes on machines, both kinds of connections, crashes, the end of a world."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time
import uuid
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from chaos.sim.host import ProcessHost
from chaos.sim.messages import MessageEnd, dial, listen
from chaos.sim.report import Deadlock
from chaos.sim.sockets import NetLoop
from chaos.sim.world import World

POLICIES = ("fifo", "random", "pct")


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def echo_server(host: ProcessHost) -> None:
    """Answers POST / with what it got, and every message on /ws likewise."""

    async def post(request: web.Request) -> web.Response:
        return web.Response(text=f"got {await request.text()}")

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_post("/", post)
    app.router.add_get("/ws", socket)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()
    await forever()


@pytest.mark.parametrize("policy", POLICIES)
def test_unmodified_aiohttp_talks_through_the_simulated_network(policy: Any) -> None:
    async def client(host: ProcessHost) -> list[str]:
        answers = []
        async with aiohttp.ClientSession() as session:
            for number in range(5):
                async with session.post("http://b:80/", data=str(number)) as response:
                    answers.append(await response.text())
            async with session.ws_connect("http://b:80/ws") as ws:
                for number in range(5):
                    await ws.send_bytes(b"%d" % number)
                    answers.append((await ws.receive()).data.decode())
        return answers

    with World(1, policy=policy) as world:
        world.host("b").spawn("server", echo_server)
        world.run_for(0.001)
        process = world.host("a").spawn("client", client)
        answers = world.run(wait(process.exited))
        assert not world.loop.failures
    assert answers == [*(f"got {number}" for number in range(5)), *map(str, range(5))]


async def wait(future: asyncio.Future[Any]) -> Any:
    return await future


@pytest.mark.parametrize("policy", POLICIES)
def test_messages_arrive_in_order_both_ways(policy: Any) -> None:
    def serve(end: MessageEnd) -> None:
        async def answer() -> None:
            while True:
                end.send(await end.receive() * 2, 8)

        serving.append(asyncio.ensure_future(answer()))

    serving: list[asyncio.Future[None]] = []

    async def server(host: ProcessHost) -> None:
        listen(world.network, 7000, serve)
        await forever()

    async def client(host: ProcessHost) -> list[int]:
        end = await dial(world.network, "b", 7000)
        for number in range(50):
            end.send(number, 8)
        return [await end.receive() for _ in range(50)]

    with World(2, policy=policy) as world:
        world.host("b").spawn("server", server)
        world.run_for(0.001)
        process = world.host("a").spawn("client", client)
        assert world.run(wait(process.exited)) == [2 * number for number in range(50)]


def test_a_crash_runs_no_finally_and_no_timer() -> None:
    heard: list[str] = []

    async def main(host: ProcessHost) -> None:
        async def sleeper() -> None:
            try:
                await asyncio.sleep(1)
            finally:
                heard.append("finally")

        asyncio.get_running_loop().call_later(0.5, heard.append, "timer")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(sleeper())
                group.create_task(forever())
        finally:
            heard.append("finally of main")

    with World(3) as world:
        process = world.host("a").spawn("main", main)
        world.run_for(0.1)
        process.crash()
        world.run_for(5)
        assert heard == []
        assert not process.alive
        assert process.exited.done()


def test_a_world_that_stands_still_says_who_waits_for_what() -> None:
    async def waits_here(host: ProcessHost) -> None:
        await asyncio.Event().wait()

    with World(4) as world:
        world.host("a").spawn("stuck", waits_here)
        with pytest.raises(Deadlock, match=r"a/stuck#1 · .*waits_here:\d+ → Event.wait:\d+, awaiting") as caught:
            world.run(forever())
        assert "world · " in caught.value.message


def test_closing_a_world_restores_what_it_replaced_and_leaves_nothing() -> None:
    before = (time.time, time.monotonic, os.urandom, uuid.uuid4, asyncio.Task, random.getstate(), gc.isenabled())
    gc.collect()
    objects = len(gc.get_objects())
    for seed in range(3):
        with World(seed) as world:
            for name in ("a", "b"):
                world.host(name).spawn("server", echo_server)
            world.run_for(1)
            world.hosts["a"].power_off()
            assert time.time() == pytest.approx(1_800_000_001, abs=1)
        del world
    assert before == (
        time.time,
        time.monotonic,
        os.urandom,
        uuid.uuid4,
        asyncio.Task,
        random.getstate(),
        gc.isenabled(),
    )
    gc.collect()
    assert len(gc.get_objects()) < objects + 1000


def test_aiohttp_forgets_names_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = NetLoop.getaddrinfo

    async def counted(self: NetLoop, host: Any, port: Any, **hints: Any) -> Any:
        asked.append(self.now)
        return await original(self, host, port, **hints)

    async def client(host: ProcessHost) -> None:
        connector = aiohttp.TCPConnector(ttl_dns_cache=2, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(20):
                async with session.post("http://b:80/", data="x") as response:
                    assert response.status == 200
                await asyncio.sleep(0.5)

    monkeypatch.setattr(NetLoop, "getaddrinfo", counted)
    with World(6) as world:
        world.host("b").spawn("server", echo_server)
        world.run_for(0.001)
        process = world.host("a").spawn("client", client)
        world.run(wait(process.exited))
    assert 4 <= len(asked) <= 6


def test_what_processes_say_is_kept_and_a_librarys_error_is_a_failure() -> None:
    handlers, configured = list(logging.root.handlers), structlog.is_configured()

    async def main(host: ProcessHost) -> None:
        log = structlog.get_logger("test").bind(node="a")
        log.info("too quiet")
        log.warning("heard", number=7)
        await asyncio.sleep(1)
        logging.getLogger("library").error("broken %s", "pipe")
        log.error("last words")
        host.machine.end(host.life)
        log.error("from the dead")

    with World(7, log_level="warning") as world:
        world.host("a").spawn("main", main)
        world.run_for(2)
        assert [(now_ns, life, level, event["event"]) for now_ns, life, level, event in world.logs.lines] == [
            (0, "a/main#1", "warning", "heard"),
            (10**9, "a/main#1", "error", "last words"),
        ]
        assert "number=7" in world.logs.text()
        assert [failure[:3] for failure in world.loop.failures] == [(10**9, "a/main#1", "library: broken pipe")]
    assert (logging.root.handlers, structlog.is_configured()) == (handlers, configured)
