"""The client says of a write only what it knows: not done, or unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from raft.errors import OutcomeUnknown
from skerry.client import Client
from skerry.errors import ApiError, Unreachable, exit_code

JOB = {"name": "hello", "command": ["/bin/true"]}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def replica(answer: Answer) -> AsyncIterator[str]:
    """An API on a port of the kernel's choice that answers every call with `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("never reached")


async def breaks(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def accepts(request: web.Request) -> web.StreamResponse:
    return web.json_response({"v": 1, "job": "default/hello", "request": (await request.json())["request_id"]})


async def refuses(_: web.Request) -> web.StreamResponse:
    problem = {"code": "no-quorum", "detail": "no majority", "retryable": True, "outcome": "not-done"}
    return web.json_response(problem, status=503)


@pytest.mark.parametrize("answer", [hangs, breaks])
async def test_a_write_that_was_sent_and_not_answered_is_unknown_and_names_its_request_id(answer: Answer) -> None:
    async with replica(answer) as address, Client([address], token="t", timeout_s=0.6) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.submit(JOB, request_id="first")
    assert caught.value.outcome == "unknown"
    assert exit_code(caught.value) == 6
    assert "--request-id first" in caught.value.hint


async def test_a_read_that_is_not_answered_is_unreachable() -> None:
    async with replica(hangs) as address, Client([address], token="t", timeout_s=0.6) as client:
        with pytest.raises(Unreachable):
            await client.status()


async def test_a_write_that_reached_nobody_certainly_did_not_happen(unused_tcp_port: int) -> None:
    async with Client([f"http://127.0.0.1:{unused_tcp_port}"], token="t", timeout_s=0.6) as client:
        with pytest.raises(Unreachable) as caught:
            await client.submit(JOB, request_id="first")
    assert caught.value.outcome == "not-done"


async def test_a_write_that_everybody_refused_certainly_did_not_happen() -> None:
    async with replica(refuses) as address, Client([address], token="t", timeout_s=0.6) as client:
        with pytest.raises(ApiError) as caught:
            await client.submit(JOB, request_id="first")
    assert caught.value.outcome == "not-done"


async def test_a_hanging_replica_leaves_time_for_the_others_and_they_get_the_same_request_id() -> None:
    async with (
        replica(hangs) as hanging,
        replica(accepts) as fine,
        Client([hanging, fine], token="t", timeout_s=2.0) as client,
    ):
        assert (await client.submit(JOB, request_id="first"))["request"] == "first"
