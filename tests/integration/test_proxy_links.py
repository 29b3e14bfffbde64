"""Links are cut and healed through toxiproxy-python's thread; the proxy runs as a process with its trace."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from chaos.errors import ProxyConfigInvalid, ProxyRefused, ProxyUnreachable, SelectorUnresolved
from chaos.links import ProxyLinks
from chaos.proxy.api import application
from chaos.proxy.registry import Registry
from chaos.proxy.server import ProxyConfig, load_proxies, run_proxy
from chaos.toxiproxy_client import ToxicCall, ToxiproxyClient
from chaos.trace.checkers import CHECKERS
from chaos.trace.reader import read_trace

PAIRS = [("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n1"), ("a1", "n1")]


class Nothing:
    def emit(self, kind: str, /, **fields: object) -> None:
        """Forget it."""


async def serve(registry: Registry, token: str | None = None) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(application(registry, token=token), shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry(Nothing())
    for source, target in PAIRS:
        await made.create({"name": f"{source}~{target}", "upstream": "127.0.0.1:1"})
    yield made
    await made.close()


@pytest.fixture
async def api(registry: Registry) -> AsyncIterator[str]:
    runner, url = await serve(registry)
    yield url
    await runner.cleanup()


def in_force(registry: Registry) -> set[str]:
    return {f"{name}:{toxic}" for name, relay in registry.relays().items() for toxic in relay.toxics}


async def test_a_cut_silences_both_streams_of_each_link_and_heals(api: str, registry: Registry) -> None:
    links = ProxyLinks(ToxiproxyClient(api))
    matrix = await links.matrix()
    assert matrix.pairs == tuple(sorted(PAIRS))
    await links.cut("p", matrix.between([["n1"], ["n2"]]))
    assert in_force(registry) == {
        "n1~n2:p_upstream",
        "n1~n2:p_downstream",
        "n2~n1:p_upstream",
        "n2~n1:p_downstream",
    }
    assert registry.get_toxic("n1~n2", "p_upstream").attributes == {"timeout": 0}
    await links.heal("p")
    await links.heal("p")
    assert in_force(registry) == set()


async def test_faults_that_touch_nothing_or_exist_already_are_refused(api: str, registry: Registry) -> None:
    links = ProxyLinks(ToxiproxyClient(api))
    with pytest.raises(SelectorUnresolved):
        await links.cut("p", [])
    await links.delay("d", [("n1", "n2")], latency_ms=5, jitter_ms=1)
    assert in_force(registry) == {"n1~n2:d_upstream"}
    with pytest.raises(ProxyRefused, match="already"):
        await links.delay("d", [("n1", "n2")], latency_ms=5, jitter_ms=1)


async def test_a_cut_that_fails_half_way_leaves_nothing_behind(api: str, registry: Registry) -> None:
    links = ProxyLinks(ToxiproxyClient(api))
    with pytest.raises(ProxyRefused):
        await links.cut("p", [("n1", "n2"), ("n1", "nowhere")])
    assert in_force(registry) == set()


async def test_heal_all_removes_what_anybody_injected(api: str, registry: Registry) -> None:
    registry.add_toxic("a1~n1", {"type": "latency", "name": "by-hand"})
    await registry.get("n1~n3").set_enabled(False)
    assert sorted(await ProxyLinks(ToxiproxyClient(api)).heal_all()) == ["a1~n1:by-hand", "n1~n3"]
    assert in_force(registry) == set()
    assert registry.get("n1~n3").spec.enabled


async def test_two_servers_are_driven_from_one_process_with_a_token_each(registry: Registry) -> None:
    other = Registry(Nothing())
    first, first_url = await serve(registry, token="one")
    second, second_url = await serve(other, token="two")
    try:
        one, two = ToxiproxyClient(first_url, token="one"), ToxiproxyClient(second_url, token="two")
        results = await asyncio.gather(*(client.proxies() for client in (one, two) * 5))
        assert [len(found) for found in results] == [5, 0] * 5
        with pytest.raises(ProxyRefused, match="401"):
            await ToxiproxyClient(first_url, token="two").proxies()
    finally:
        await first.cleanup()
        await second.cleanup()


async def test_a_server_that_hangs_or_is_absent_is_an_error_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(ProxyUnreachable):
            await asyncio.wait_for(ToxiproxyClient(f"http://127.0.0.1:{port}", timeout_s=0.2).proxies(), 5)
    with pytest.raises(ProxyUnreachable):
        await ToxiproxyClient(f"http://127.0.0.1:{port}", timeout_s=0.2).proxies()


async def test_a_server_that_speaks_nonsense_is_refused() -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", nonsense)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        client = ToxiproxyClient(f"http://127.0.0.1:{runner.addresses[0][1]}")
        with pytest.raises((ProxyRefused, ProxyUnreachable)):
            await client.proxies()
    finally:
        await runner.cleanup()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_proxy_process_serves_its_file_and_writes_a_trace_that_proves_the_silence(tmp_path: Path) -> None:
    proxies, port = tmp_path / "proxies.json", free_port()
    link = free_port()
    entry = {"name": "n1~n2", "listen": f"127.0.0.1:{link}", "upstream": "127.0.0.1:1"}
    proxies.write_text(json.dumps([entry]))
    stop = asyncio.Event()
    config = ProxyConfig(listen=f"127.0.0.1:{port}", proxies=proxies, trace=tmp_path / "trace")
    running = asyncio.create_task(run_proxy(config, stop=stop))
    client = ToxiproxyClient(f"http://127.0.0.1:{port}")
    async with asyncio.timeout(10):
        while not running.done():
            try:
                assert await client.proxies() == {"n1~n2": True}
                break
            except ProxyUnreachable:
                await asyncio.sleep(0.02)
    await client.add_toxics([ToxicCall("n1~n2", "cut", "timeout", "upstream", {"timeout": 0})])
    _, writer = await asyncio.open_connection("127.0.0.1", link)
    writer.write(b"12345")
    async with asyncio.timeout(10):
        while (await client.counters())["n1~n2"]["upstream"]["discarded"] < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await client.remove_toxics([("n1~n2", "cut")])
    writer.close()
    stop.set()
    assert await asyncio.wait_for(running, 10) == 0
    trace = read_trace(tmp_path / "trace")
    heal = trace.kind("heal")[0]
    assert heal.part("counters") == {"bytes_forwarded": 0, "bytes_since_fault": 0, "bytes_discarded": 5}
    found = CHECKERS["link-cut-silent"](trace)
    assert (found.ok, found.checked) == (True, 1)


async def test_a_bad_configuration_of_the_proxy_is_refused_with_a_hint(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(ProxyConfigInvalid) as refused:
        load_proxies(bad)
    assert refused.value.hint
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ProxyConfigInvalid, match="in use"):
            await run_proxy(ProxyConfig(listen=busy), stop=asyncio.Event())
        good = tmp_path / "good.toml"
        good.write_text(f'[[proxies]]\nname = "a"\nlisten = "{busy}"\nupstream = "127.0.0.1:1"\n')
        assert load_proxies(good)[0]["name"] == "a"
        with pytest.raises(ProxyConfigInvalid, match="in use"):
            await run_proxy(ProxyConfig(listen="127.0.0.1:0", proxies=good), stop=asyncio.Event())
    with pytest.raises(ProxyConfigInvalid, match="host:port"):
        await run_proxy(ProxyConfig(listen="nowhere"), stop=asyncio.Event())


async def test_the_proxy_passes_a_hundred_connections_at_once(registry: Registry) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    upstream = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    relay = await registry.create({"name": "busy", "upstream": upstream})
    host, port = relay.spec.listen.rsplit(":", 1)

    async def one(number: int) -> bool:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for turn in range(20):
                text = f"{number}/{turn}".encode()
                writer.write(text)
                if await reader.readexactly(len(text)) != text:
                    return False
            return True
        finally:
            writer.close()
            await writer.wait_closed()

    assert all(await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(100))), 30))
    async with asyncio.timeout(10):
        while relay.counters_document()["connections"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert relay.counters["upstream"].received == relay.counters["upstream"].forwarded
    server.close()
