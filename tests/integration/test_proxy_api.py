"""The real toxiproxy-python drives our proxy; cuts are silent; bad input is an answer, not a crash."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import toxiproxy
from aiohttp import web
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from chaos.proxy.api import application
from chaos.proxy.registry import Registry

DEADLINE_S = 10.0


class Events(list[dict[str, Any]]):
    def emit(self, kind: str, /, **fields: Any) -> None:
        self.append({"k": kind, **fields})


class Upstream:
    """An echo server that counts what reaches it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.connections = 0
        self.ended = 0
        self.changed = asyncio.Condition()
        self.echo = True
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.received += data
                await self._tell()
                if self.echo:
                    writer.write(data)
                    await writer.drain()
        self.ended += 1
        await self._tell()
        writer.close()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(condition)


class World:
    def __init__(self, registry: Registry, events: Events, upstream: Upstream, address: str, port: int) -> None:
        self.registry, self.events, self.upstream = registry, events, upstream
        self.upstream_address, self.port = address, port
        self.url = f"http://127.0.0.1:{port}"
        self.session = aiohttp.ClientSession()
        self.writers: list[asyncio.StreamWriter] = []

    async def python(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the blocking client in a thread."""
        return await asyncio.wait_for(asyncio.to_thread(function, *args, **kwargs), DEADLINE_S)

    async def call(self, method: str, path: str, body: Any = None, **kwargs: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, json=body, **kwargs) as answer:
            return answer.status, await answer.json(content_type=None) if answer.status != 204 else None

    async def link(self, name: str = "n1~n2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*_split(self.registry.get(name).spec.listen))
        self.writers.append(writer)
        return reader, writer


async def until(condition: Callable[[], bool]) -> None:
    """Counters have no one to wake us: look again until the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def _split(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    events, upstream = Events(), Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    registry = Registry(events, seed=1)
    runner = web.AppRunner(application(registry), shutdown_timeout=1.0, lingering_time=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    toxiproxy.Toxiproxy().update_api_consumer("127.0.0.1", port)
    made = World(registry, events, upstream, address, port)
    await registry.create({"name": "n1~n2", "listen": "127.0.0.1:0", "upstream": address})
    yield made
    await made.session.close()
    await registry.close()
    for writer in upstream.writers + made.writers:
        writer.transport.abort()
    server.close()
    await runner.cleanup()
    await asyncio.sleep(0)


async def echo(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
    reader, writer = streams
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), DEADLINE_S)


async def test_toxiproxy_python_does_everything_it_can_do(world: World) -> None:
    server = toxiproxy.Toxiproxy()

    def drive() -> None:
        assert server.running()
        assert b'"version"' in server.version()
        proxy = server.create(name="made", upstream=world.upstream_address)
        assert proxy.enabled
        assert not proxy.listen.endswith(":0")
        with pytest.raises(ProxyExists):
            server.create(name="made", upstream=world.upstream_address)
        assert set(server.proxies()) == {"n1~n2", "made"}
        proxy.add_toxic(type="latency", attributes={"latency": 5, "jitter": 1})
        proxy.add_toxic(type="timeout", stream="upstream", attributes={"timeout": 0}, toxicity=0.5, name="cut")
        toxics = proxy.toxics()
        assert sorted(toxics) == ["cut", "latency_downstream"]
        assert toxics["cut"].toxicity == 0.5
        assert toxics["cut"].stream == "upstream"
        assert proxy.get_toxic("latency_downstream").attributes == {"latency": 5, "jitter": 1}
        with pytest.raises(ProxyExists):
            proxy.add_toxic(type="latency")
        with pytest.raises(InvalidToxic):
            proxy.add_toxic(type="no-such-toxic")
        with pytest.raises(InvalidToxic):
            proxy.add_toxic(type="slicer", attributes={"average_size": 0})
        proxy.destroy_toxic("cut")
        with pytest.raises(NotFound):
            proxy.destroy_toxic("cut")
        with proxy.down():
            assert server.get_proxy("made").enabled is False
        assert server.get_proxy("made").enabled is True
        assert server.reset()
        assert proxy.toxics() == {}
        made = server.populate([{"name": "made", "upstream": world.upstream_address, "listen": proxy.listen}])
        assert made == []
        server.destroy(proxy)
        assert set(server.proxies()) == {"n1~n2"}
        server.destroy_all()
        assert server.proxies() == {}

    await world.python(drive)


async def test_bytes_pass_and_are_counted_in_both_streams(world: World) -> None:
    streams = await world.link()
    assert await echo(streams, b"x" * 1000) == b"x" * 1000
    _, counted = await world.call("GET", "/proxies/n1~n2/counters")
    assert counted["upstream"] == {"received": 1000, "forwarded": 1000, "discarded": 0}
    assert counted["downstream"]["forwarded"] == 1000
    assert counted["connections"] == 1
    streams[1].close()
    await world.upstream.until(lambda: world.upstream.ended == 1)


async def test_a_large_transfer_through_a_slow_reader_is_complete_and_bounded(world: World) -> None:
    reader, writer = await world.link()
    size = 32 << 20
    payload = bytes(1 << 20)

    async def send() -> None:
        for _ in range(size // len(payload)):
            writer.write(payload)
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    got = 0
    while data := await asyncio.wait_for(reader.read(1 << 16), DEADLINE_S):
        got += len(data)
    await sending
    assert got == size
    writer.close()


async def test_a_cut_stops_even_the_bytes_that_the_proxy_already_holds(world: World) -> None:
    world.upstream.echo = False
    streams = await world.link()
    await world.call(
        "POST", "/proxies/n1~n2/toxics", {"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 10}}
    )
    streams[1].write(bytes(200_000))  # 20 s at 10 KB/s: almost all of it waits inside the proxy
    await world.upstream.until(lambda: len(world.upstream.received) > 0)
    body = {"type": "timeout", "stream": "upstream", "name": "cut", "attributes": {"timeout": 0}}
    status, _ = await world.call("POST", "/proxies/n1~n2/toxics", body)
    assert status == 200
    at_cut = world.registry.get("n1~n2").counters["upstream"].forwarded
    await world.call("DELETE", "/proxies/n1~n2/toxics/bandwidth_upstream")  # releases what it held: into nothing
    streams[1].write(b"more")
    counters = world.registry.get("n1~n2").counters["upstream"]

    await until(lambda: counters.received >= 200_004 and counters.discarded + counters.forwarded >= counters.received)
    assert counters.forwarded == at_cut
    await world.call("DELETE", "/proxies/n1~n2/toxics/cut")
    assert await asyncio.wait_for(streams[0].read(), DEADLINE_S) == b""  # closed, so that peers dial again
    await world.upstream.until(lambda: world.upstream.ended == 1)
    assert len(world.upstream.received) == at_cut
    fault, heal = [e for e in world.events if e.get("kind") == "timeout"]
    assert fault["k"] == "fault"
    assert fault["by"] == {"proxy": "n1~n2", "toxic": "cut", "stream": "upstream"}
    assert fault["counters"] == {"bytes_forwarded": at_cut}
    assert heal["k"] == "heal"
    assert heal["id"] == fault["id"]
    assert heal["counters"]["bytes_since_fault"] == 0
    assert heal["counters"]["bytes_discarded"] > 190_000


async def test_a_cut_stops_bytes_that_wait_for_a_receiver_that_does_not_read(world: World) -> None:
    """The sink's window is closed: bytes wait in the proxy's output, which a cut must empty."""
    reader, writer = await world.link()
    writer.transport.pause_reading()
    world.upstream.echo = False
    writer.write(b"hello")
    await world.upstream.until(lambda: world.upstream.connections == 1 and bool(world.upstream.received))
    answerer = world.upstream.writers[0]
    answerer.write(bytes(32 << 20))
    counters = world.registry.get("n1~n2").counters["downstream"]

    async def stuck() -> None:
        before = -1
        while before != counters.received or counters.received == counters.forwarded:
            before = counters.received
            await asyncio.sleep(0.05)

    await asyncio.wait_for(stuck(), DEADLINE_S)
    world.registry.add_toxic("n1~n2", {"type": "timeout", "name": "cut"})
    at_cut = counters.forwarded
    assert counters.discarded > 0
    writer.transport.resume_reading()
    got = 0
    with contextlib.suppress(TimeoutError):
        while data := await asyncio.wait_for(reader.read(1 << 20), 0.3):
            got += len(data)
    assert got == at_cut
    assert counters.forwarded == at_cut
    writer.close()


async def test_a_new_connection_during_a_cut_is_accepted_and_the_far_side_never_hears_of_it(world: World) -> None:
    for stream in ("upstream", "downstream"):
        await world.call("POST", "/proxies/n1~n2/toxics", {"type": "timeout", "stream": stream})
    reader, writer = await world.link()
    writer.write(b"anyone there?")
    counters = world.registry.get("n1~n2").counters["upstream"]

    await until(lambda: counters.discarded >= 13)
    assert world.upstream.connections == 0
    assert counters.forwarded == 0
    await world.call("POST", "/reset")
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    writer.close()
    assert await echo(await world.link(), b"again") == b"again"
    assert world.upstream.connections == 1


async def test_one_direction_can_be_cut_alone(world: World) -> None:
    streams = await world.link()
    await echo(streams, b"1")
    world.registry.add_toxic("n1~n2", {"type": "timeout", "stream": "downstream"})
    streams[1].write(b"2")
    await world.upstream.until(lambda: world.upstream.received == b"12")
    counters = world.registry.get("n1~n2").counters["downstream"]

    await until(lambda: counters.discarded >= 1)
    assert counters.forwarded == 1
    streams[1].close()
    await world.upstream.until(lambda: world.upstream.ended == 1)


async def test_a_side_that_closes_during_a_cut_is_not_noticed_until_the_heal(world: World) -> None:
    streams = await world.link()
    await echo(streams, b"1")
    for stream in ("upstream", "downstream"):
        world.registry.add_toxic("n1~n2", {"type": "timeout", "stream": stream})
    streams[1].transport.abort()
    world.upstream.writers[0].write(b"x" * 10)
    counters = world.registry.get("n1~n2").counters["downstream"]

    await until(lambda: counters.discarded >= 10)
    assert world.upstream.ended == 0
    world.registry.remove_toxic("n1~n2", "timeout_upstream")
    await world.upstream.until(lambda: world.upstream.ended == 1)


async def test_a_disabled_proxy_refuses_and_an_enabled_one_serves_again(world: World) -> None:
    streams = await world.link()
    await echo(streams, b"1")
    await world.call("POST", "/proxies/n1~n2", {"enabled": False})
    assert await asyncio.wait_for(streams[0].read(), DEADLINE_S) == b""
    with pytest.raises(ConnectionRefusedError):
        await world.link()
    await world.call("PATCH", "/proxies/n1~n2", {"enabled": True})
    assert await echo(await world.link(), b"2") == b"2"
    assert [(e["k"], e["kind"]) for e in world.events] == [("fault", "down"), ("heal", "down")]
    streams[1].close()


async def test_an_upstream_that_is_down_resets_the_caller(world: World) -> None:
    await world.registry.create({"name": "dead", "upstream": "127.0.0.1:1"})
    reader, writer = await world.link("dead")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()


async def test_reset_peer_sends_a_reset(world: World) -> None:
    world.registry.add_toxic("n1~n2", {"type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 10}})
    reader, writer = await world.link()
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert world.upstream.received == b""


async def test_limit_data_passes_exactly_its_bytes_and_closes(world: World) -> None:
    world.registry.add_toxic("n1~n2", {"type": "limit_data", "attributes": {"bytes": 7}})
    reader, writer = await world.link()
    writer.write(b"0123456789")
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b"0123456"
    writer.close()


async def test_slicer_latency_and_bandwidth_keep_every_byte_in_order(world: World) -> None:
    for body in (
        {"type": "slicer", "attributes": {"average_size": 50, "size_variation": 20, "delay": 100}},
        {"type": "latency", "attributes": {"latency": 5, "jitter": 5}},
        {"type": "bandwidth", "attributes": {"rate": 1000}},
        {"type": "slow_close", "attributes": {"delay": 20}},
    ):
        world.registry.add_toxic("n1~n2", body)
    reader, writer = await world.link()
    data = bytes(i % 251 for i in range(20_000))
    writer.write(data)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == data
    writer.close()


async def test_latency_delays_and_its_removal_delivers_at_once(world: World) -> None:
    loop = asyncio.get_running_loop()
    world.registry.add_toxic("n1~n2", {"type": "latency", "attributes": {"latency": 100}})
    streams = await world.link()
    before = loop.time()
    await echo(streams, b"1")
    assert loop.time() - before >= 0.099
    world.registry.update_toxic("n1~n2", "latency_downstream", {"attributes": {"latency": 60_000}})
    streams[1].write(b"2")
    await world.upstream.until(lambda: world.upstream.received == b"12")
    counters = world.registry.get("n1~n2").counters["downstream"]

    await until(lambda: counters.received >= 2)
    world.registry.remove_toxic("n1~n2", "latency_downstream")
    assert await asyncio.wait_for(streams[0].readexactly(1), DEADLINE_S) == b"2"
    streams[1].close()


async def test_held_bytes_are_delivered_after_the_hold_on_the_same_connection(world: World) -> None:
    streams = await world.link()
    await echo(streams, b"1")
    world.registry.add_toxic("n1~n2", {"type": "hold", "stream": "upstream"})
    streams[1].write(b"held")
    counters = world.registry.get("n1~n2").counters["upstream"]

    await until(lambda: counters.received >= 5)
    assert counters.forwarded == 1
    world.registry.remove_toxic("n1~n2", "hold_upstream")
    assert await asyncio.wait_for(streams[0].readexactly(4), DEADLINE_S) == b"held"
    streams[1].close()


async def test_toxicity_is_one_coin_a_connection_and_the_seed_decides_it(world: World) -> None:
    async def cut_connections(seed: int) -> list[bool]:
        registry = Registry(Events(), seed=seed)
        relay = await registry.create({"name": "p", "upstream": world.upstream_address})
        registry.add_toxic("p", {"type": "timeout", "toxicity": 0.5})
        outcomes = []
        for _ in range(12):
            _, writer = await asyncio.open_connection(*_split(relay.spec.listen))
            before = relay.counters["downstream"].received
            discarded = relay.counters["downstream"].discarded
            writer.write(b"x")
            await until(lambda before=before: relay.counters["downstream"].received > before)  # type: ignore[misc]
            outcomes.append(relay.counters["downstream"].discarded > discarded)
            writer.close()
        await registry.close()
        return outcomes

    first = await cut_connections(3)
    assert first == await cut_connections(3)
    assert {True, False} == set(first)


async def test_populate_is_all_or_nothing(world: World) -> None:
    taken = world.registry.get("n1~n2").spec.listen
    body = [
        {"name": "good", "listen": "127.0.0.1:0", "upstream": world.upstream_address},
        {"name": "bad", "listen": taken, "upstream": world.upstream_address},
    ]
    status, answer = await world.call("POST", "/populate", body)
    assert status == 500
    assert "in use" in answer["error"]
    assert set(world.registry.relays()) == {"n1~n2"}
    status, answer = await world.call("POST", "/populate", body[:1])
    assert status == 201
    assert [proxy["name"] for proxy in answer["proxies"]] == ["good"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/proxies", {"upstream": "a:1"}, 400, "missing required field: name"),
        ("POST", "/proxies", {"name": "a", "upstream": "nowhere"}, 400, "host:port"),
        ("POST", "/proxies", {"name": "a/b", "upstream": "a:1"}, 400, "without '/'"),
        ("POST", "/proxies", {"name": "a", "upstream": "a:1", "colour": 1}, 400, "colour"),
        ("POST", "/proxies", [], 400, "object"),
        ("POST", "/populate", {"name": "a"}, 400, "list"),
        ("GET", "/proxies/none", None, 404, "proxy not found"),
        ("POST", "/proxies/none/toxics", {"type": "latency"}, 404, "proxy not found"),
        ("GET", "/proxies/n1~n2/toxics/none", None, 404, "toxic not found"),
        ("POST", "/proxies/n1~n2/toxics", {"type": "latency", "stream": "sideways"}, 400, "stream"),
        ("POST", "/proxies/n1~n2/toxics", {"type": "latency", "attributes": {"latency": -1}}, 400, "latency"),
        ("POST", "/proxies/n1~n2/toxics", {"type": "latency", "attributes": {"latancy": 1}}, 400, "latancy"),
        ("POST", "/proxies/n1~n2/toxics", {"type": "latency", "attributes": {"latency": True}}, 400, "whole"),
        ("POST", "/proxies/n1~n2/toxics", {"type": "latency", "toxicity": 2}, 400, "toxicity"),
        ("GET", "/nothing-here", None, 404, "Not Found"),
        ("DELETE", "/proxies", None, 405, "Method"),
    ],
)
async def test_bad_requests_get_a_clear_error(
    world: World, method: str, path: str, body: Any, status: int, words: str
) -> None:
    found, answer = await world.call(method, path, body)
    assert found == status
    assert answer["status"] == status
    assert words in answer["error"]


async def test_garbage_and_huge_bodies_and_browsers_are_refused_and_the_proxy_lives_on(world: World) -> None:
    async with world.session.post(world.url + "/proxies", data=b"\xff\x00garbage") as answer:
        assert answer.status == 400
    async with world.session.post(world.url + "/proxies", data=b"[" * 200_000) as answer:
        assert answer.status == 400
    status, _ = await world.call("GET", "/proxies", headers={"User-Agent": "Mozilla/5.0"})
    assert status == 403

    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"\x16\x03\x01garbage\r\n\r\n" * 10)
    assert b"400" in await asyncio.wait_for(reader.read(1000), DEADLINE_S)
    writer.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"POST /proxies HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")

    async def flood() -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                writer.write(bytes(1_000_000))
                await writer.drain()

    flooding = asyncio.create_task(flood())
    with contextlib.suppress(ConnectionError):
        assert b"413" in await asyncio.wait_for(reader.read(100), DEADLINE_S)
    await asyncio.wait_for(flooding, 60)
    writer.transport.abort()
    assert (await world.call("GET", "/version"))[0] == 200


async def test_the_metrics_name_every_proxy_and_stream(world: World) -> None:
    await echo(await world.link(), b"12345")
    async with world.session.get(world.url + "/metrics") as answer:
        text = await answer.text()
    assert 'toxiproxy_proxy_sent_bytes_total{direction="upstream"' in text
    assert 'proxy="n1~n2"' in text


async def test_with_a_token_nobody_without_it_gets_in(world: World) -> None:
    runner = web.AppRunner(application(world.registry, token="s3cret"))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/proxies"
    try:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer no"}, 401),
            ({"Authorization": "Bearer s3cret"}, 200),
        ):
            async with world.session.get(url, headers=headers) as answer:
                assert answer.status == status
    finally:
        await runner.cleanup()
