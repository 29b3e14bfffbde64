"""Traffic that is as undetermined as asyncio, aiohttp and Python's sets make it, in a world whose seed determines it.

Run as a program it prints one JSON object: digests of what happened, by name.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
import uuid
from typing import Any

import aiohttp
from aiohttp import web

from chaos.sim.host import ProcessHost
from chaos.sim.links import CUT, Impairment
from chaos.sim.messages import MessageEnd, dial, listen
from chaos.sim.world import World

SERVERS = ("s1", "s2", "s3")
CLIENTS = ("c1", "c2")


def digest_of_traffic(seed: int, policy: Any, transport: str) -> dict[str, Any]:
    """What clients saw, step by step, with faults under way."""
    seen: list[tuple[Any, ...]] = []
    with World(seed, policy=policy, loss=0.02) as world:
        server, client = (_http_server, _http_client) if transport == "http" else (_server, _client)
        processes = {name: world.host(name).spawn("server", server(world)) for name in SERVERS}
        world.run_for(0.01)
        for name in CLIENTS:
            world.host(name, rate_ppm=len(seen) * 100 - 50).spawn("client", client(world, seen))
        world.run_for(1)
        world.network.impair("cut", [("c1", "s1"), ("s2", "c2")], CUT)
        world.network.impair("slow", [("c2", "s3")], Impairment(delay_ns=20_000_000, jitter_ns=9_000_000))
        world.run_for(0.7)
        processes["s3"].crash()
        world.hosts["s1"].pause()
        world.run_for(0.7)
        world.network.heal_all()
        world.hosts["s1"].resume()
        world.hosts["s3"].spawn("server", server(world))
        world.run_for(3)
        steps = world.loop.steps
    found = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    return {"digest": found, "events": len(seen), "steps": steps}


def _http_server(world: World) -> Any:
    async def main(host: ProcessHost) -> None:
        async def answer(request: web.Request) -> web.Response:
            await asyncio.sleep(random.random() / 100)
            return web.Response(text=f"{uuid.uuid4()} {time.time_ns()} {await request.text()}")

        async def socket(request: web.Request) -> web.WebSocketResponse:
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            async for message in ws:
                await ws.send_bytes(message.data)
            return ws

        app = web.Application()
        app.router.add_post("/", answer)
        app.router.add_get("/ws", socket)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 80).start()
        await asyncio.get_running_loop().create_future()

    return main


def _http_client(world: World, seen: list[tuple[Any, ...]]) -> Any:
    async def ask(host: ProcessHost, http: aiohttp.ClientSession, number: int) -> None:
        name = host.machine.name
        server = random.choice(SERVERS)
        try:
            async with http.post(f"http://{server}/", data=str(number)) as response:
                seen.append((world.now_ns, name, server, await response.text(), dict(response.headers)["Date"]))
            async with http.ws_connect(f"http://{server}/ws") as ws:
                await ws.send_bytes(b"%d" % number)
                seen.append((world.now_ns, name, str((await ws.receive(timeout=0.3)).data)))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            seen.append((world.now_ns, name, server, type(error).__name__))

    async def main(host: ProcessHost) -> None:
        timeout = aiohttp.ClientTimeout(total=0.5)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=5)) as http:
            await _crowd(lambda number: ask(host, http, number), seen, world)

    return main


def _server(world: World) -> Any:
    async def main(host: ProcessHost) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def answer(end: MessageEnd) -> None:
            while True:
                asked = await end.receive()
                await asyncio.sleep(random.random() / 100)
                end.send(f"{uuid.uuid4()} {asked}", 50)

        def take(end: MessageEnd) -> None:
            task = asyncio.ensure_future(answer(end))
            tasks.add(task)

        listen(world.network, 80, take)
        await asyncio.get_running_loop().create_future()

    return main


def _client(world: World, seen: list[tuple[Any, ...]]) -> Any:
    async def ask(host: ProcessHost, number: int) -> None:
        name, server = host.machine.name, random.choice(SERVERS)
        try:
            async with asyncio.timeout(0.5):
                end = await dial(world.network, server, 80)
                for each in range(3):
                    end.send(f"{number}.{each}", 20)
                for _ in range(3):
                    seen.append((world.now_ns, name, server, await end.receive()))
                end.close()
        except (TimeoutError, OSError, EOFError) as error:
            seen.append((world.now_ns, name, server, type(error).__name__))

    async def main(host: ProcessHost) -> None:
        await _crowd(lambda number: ask(host, number), seen, world)

    return main


async def _crowd(ask: Any, seen: list[tuple[Any, ...]], world: World) -> None:
    """Many at once, waited for through sets, some of them cancelled in the order of a set."""
    number = 0
    while True:
        tasks = {asyncio.ensure_future(ask(number + each)) for each in range(8)}
        number += 8
        done, pending = await asyncio.wait(tasks, timeout=0.05)
        seen.append((world.now_ns, "done", [task.get_name() for task in done]))
        for task in pending:
            if random.random() < 0.3:
                task.cancel()
                seen.append((world.now_ns, "cancel", task.get_name()))
        await asyncio.sleep(0.01)


def main(names: list[str]) -> None:
    """Print the digests of traffic ("policy/transport")."""
    print(json.dumps({name: digest_of_traffic(7, *name.split("/")) for name in names}))


if __name__ == "__main__":
    main(sys.argv[1:])
