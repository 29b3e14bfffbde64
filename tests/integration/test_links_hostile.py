"""What must never get in, and never take the process down."""

from __future__ import annotations

import asyncio
import logging
import os
import struct

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from cluster.framing import Hello, encode_hello
from cluster.network import ListenLimits
from cluster.sockets import listen
from tests.support.link_bed import TOKEN, Member, append, both_up, pair, until


def hello(**changes) -> str:
    fields = {
        "protocol": 1,
        "cluster_name": "bed",
        "cluster_id": "",
        "generation": 0,
        "node": "n2",
        "store_id": f"{ord('2'):032x}",
        "incarnation": "cafecafe",
        "to": "n1",
    }
    return encode_hello(Hello(**{**fields, **changes}))


class Target:
    """n1 alone, with n2 as a peer that does not run."""

    async def __aenter__(self) -> Member:
        self.member = Member("n1")
        await self.member.listen_first()
        self.member.start({"n1": "x:1", "n2": "127.0.0.1:9"})
        return self.member

    async def __aexit__(self, *_: object) -> None:
        await self.member.stop()


async def knock(member: Member, text: str, token: str = TOKEN) -> tuple[int, dict]:
    """Dial with this hello; the refusal's status and document."""
    headers = {
        "Skerry-Hello": text,
        "Authorization": f"Bearer {token}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{member.port}/v1/links", headers=headers) as answer,
    ):
        assert answer.content_type == "application/problem+json"
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protocol": 99}, "protocol-version"),
        ({"cluster_name": "other"}, "wrong-cluster"),
        ({"to": "n3"}, "wrong-node"),
        ({"node": "n1"}, "duplicate-node"),
        ({"node": "n7"}, "unknown-node"),
    ],
)
async def test_a_wrong_hello_is_refused_with_its_code_and_a_hint(changes, code):
    async with Target() as member:
        status, problem = await knock(member, hello(**changes))
        assert (status, problem["code"]) == (409, code)
        assert problem["hint"]


async def test_a_formed_cluster_refuses_one_of_another_id_and_another_generation():
    async with Target() as member:
        member.cluster_id = "a" * 32
        assert (await knock(member, hello(cluster_id="b" * 32)))[1]["code"] == "wrong-cluster"
        assert (await knock(member, hello(cluster_id="a" * 32, generation=7)))[1]["code"] == "wrong-generation"


async def test_a_wrong_or_missing_token_is_refused_and_appears_in_no_log():
    with capture_logs() as logs:
        async with Target() as member:
            status, problem = await knock(member, hello(), token="not-the-right-one")
            assert (status, problem["code"]) == (401, "bad-token")
            assert (await knock(member, hello(), token=""))[1]["code"] == "bad-token"
    assert any(line.get("code") == "bad-token" for line in logs)
    assert "not-the-right-one" not in str(logs)
    assert TOKEN not in str(logs)


async def test_both_sides_log_a_refusal_clearly():
    with capture_logs() as logs:
        one, two = Member("n1"), Member("n2", cluster="elsewhere")
        for member in (one, two):
            await member.listen_first()
        try:
            one.start({"n1": "x:1", "n2": f"127.0.0.1:{two.port}"})
            two.start({"n2": "x:1", "n1": f"127.0.0.1:{one.port}"})
            refusals = lambda: {line["event"] for line in logs if line.get("code") == "wrong-cluster"}  # noqa: E731
            await until(lambda: len(refusals()) == 2, "dialler and dialled logged it")
        finally:
            for member in (one, two):
                await member.stop()


async def test_garbage_as_hello_is_a_bad_hello():
    async with Target() as member:
        for text in ("", "!!!!", "AAAA" * 10, "A" * 4000):
            status, problem = await knock(member, text)
            assert (status, problem["code"]) == (400, "bad-hello")


async def test_a_store_that_was_replaced_is_cut_off_and_not_let_in_again():
    async with pair() as (one, two, _):
        await both_up(one, two)
        one.retired = (two.store_id,)
        await until(lambda: two.links.peers_status()[0].why == "retired-store", "the refusal")
        assert not two.links.peers_status()[0].outgoing
        assert two.links.peers_status()[0].incoming, "its own door is its own affair"


async def test_a_second_live_process_with_the_same_store_is_refused_until_the_first_is_silent():
    async with pair() as (one, two, _):
        await both_up(one, two)
        status, problem = await knock(one, hello())
        assert (status, problem["code"]) == (409, "duplicate-store")
        assert (await knock(one, hello(store_id="f" * 32)))[1]["code"] == "duplicate-node"
        one.links.send("n2", append(1))
        await until(lambda: two.heard, "the first process's links work on")


async def open_link(member: Member, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    headers = {"Skerry-Hello": hello(), "Authorization": f"Bearer {TOKEN}"}
    ws = await http.ws_connect(f"http://127.0.0.1:{member.port}/v1/links", headers=headers, max_msg_size=0)
    assert (await ws.receive()).type is aiohttp.WSMsgType.BINARY  # the welcome
    return ws


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"\x93\x00\x00",
        b"\x93\x00\x00\x91\x93\x01\x00\x92\x63\x00",
        b"\x93\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x00\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 20_000,
        os.urandom(3000),
    ],
)
async def test_garbage_frames_close_the_link_and_nothing_else(garbage):
    async with Target() as member, aiohttp.ClientSession() as http:
        ws = await open_link(member, http)
        await ws.send_bytes(garbage)
        async with asyncio.timeout(3):  # at once, not by the sweep of silent links
            end = await ws.receive()
        assert end.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        await ws.close()
        again = await open_link(member, http)
        await again.close()
        assert member.heard == []


async def test_a_text_message_closes_the_link():
    async with Target() as member, aiohttp.ClientSession() as http:
        ws = await open_link(member, http)
        await ws.send_str("hello")
        assert (await ws.receive()).type is not aiohttp.WSMsgType.BINARY
        await ws.close()


async def raw(member: Member, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
    writer.write(data)
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What the other side still says, until it closes."""
    async with asyncio.timeout(8):
        try:
            return await reader.read(-1)
        except ConnectionError:
            return b""


async def test_a_frame_that_claims_a_gigabyte_is_cut_before_it_is_buffered():
    async with Target() as member:
        upgrade = (
            f"GET /v1/links HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Skerry-Hello: {hello()}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        )
        reader, writer = await raw(member, upgrade.encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(struct.pack("!BBQ", 0x82, 0x80 | 127, 1 << 30) + b"\0\0\0\0" + b"x" * 1000)
        await ended(reader)
        writer.close()
        async with aiohttp.ClientSession() as http:
            await (await open_link(member, http)).close()


async def test_a_dialer_that_gives_up_during_the_upgrade_leaves_no_traceback(monkeypatch):
    errors: list[str] = []
    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "error", lambda *a, **_: errors.append(str(a)))
    async with Target() as member, aiohttp.ClientSession() as http:
        inbound_prepare = web.WebSocketResponse.prepare

        async def prepare(self: web.WebSocketResponse, request: web.BaseRequest) -> object:
            if request.transport is not None and "X-Gone" in request.headers:
                request.transport.abort()
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            return await inbound_prepare(self, request)

        monkeypatch.setattr(web.WebSocketResponse, "prepare", prepare)
        headers = {"Skerry-Hello": hello(), "Authorization": f"Bearer {TOKEN}", "X-Gone": "1"}
        with pytest.raises(aiohttp.ClientError):
            await http.ws_connect(f"http://127.0.0.1:{member.port}/v1/links", headers=headers)
        await (await open_link(member, http)).close()
    assert errors == []


async def test_bytes_that_are_not_http_are_answered_400_and_closed():
    async with Target() as member:
        for garbage in (os.urandom(500) + b"\r\n\r\n", b"\x16\x03\x01" + b"\0" * 200 + b"\r\n\r\n", b"x" * 100_000):
            reader, writer = await raw(member, garbage)
            answer = await ended(reader)
            assert answer == b"" or b" 400 " in answer.splitlines()[0]
            writer.close()
        assert (await knock(member, hello(to="n3")))[0] == 409


async def test_a_request_head_that_drips_in_is_cut():
    listener = await listen(
        web.Application(), "127.0.0.1:0", key="k", limits=ListenLimits(header_timeout_s=0.3, connections_max=3)
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\r\nHost:")
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await ended(reader) == b""
        assert loop.time() - started < 3
        writer.close()
    finally:
        await listener.close()


async def test_connections_past_the_limit_are_closed_and_the_others_served():
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", answer)
    listener = await listen(app, "127.0.0.1:0", key="k", limits=ListenLimits(connections_max=2))
    try:
        first = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
        await until(lambda: listener.connections == 2, "two connections are open")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await ended(reader) == b""
        writer.close()
        assert listener.refused == 1
        first[0][1].write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"here" in await ended(first[0][0])
        for _, open_writer in first:
            open_writer.close()
    finally:
        await listener.close()
