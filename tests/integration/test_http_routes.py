"""The route table over real sockets: good calls, and every kind of bad one."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import pytest
from aiohttp import web
from msgspec import Meta, Struct

from cluster.aiohttp_network import AiohttpNetwork
from cluster.errors import NotFound, PeerError, PortInUse
from cluster.http import Api, Call, HttpLimits, Route
from cluster.network import DialFailed
from cluster.security import Authority, Scope
from cluster.sockets import listen
from raft.errors import NotLeader, OutcomeUnknown
from tests.support.link_bed import until

READ, SUBMIT = "token-that-reads", "token-that-submits"


class Thing(Struct, forbid_unknown_fields=True):
    """Something to store."""

    name: Annotated[str, Meta(max_length=20)]
    count: Annotated[int, Meta(ge=1)] = 1


class Window(Struct, frozen=True):
    """Query parameters."""

    since: int = 0
    stale: bool = False


class Things:
    """One application on a kernel-given port."""

    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.entered = 0
        self.observed: list[tuple[str, str, int]] = []

    async def put(self, call: Call) -> Thing:
        return Thing(call.body.name.upper(), call.body.count)

    async def show(self, call: Call) -> dict[str, Any]:
        self.entered += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.raises is not None:
            raise self.raises
        return {"name": call.path["name"], "since": call.query.since, "stale": call.query.stale}

    async def nothing(self, call: Call) -> None:
        return None

    async def health(self, call: Call) -> str:
        return "ok\n"

    async def stream(self, call: Call) -> None:
        stream = await call.request.begin(media="application/jsonl", headers={})
        for number in range(3):
            await stream.write(b'{"n":%d}\n' % number)

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST", path="/v1/things", handler=self.put, summary="Store.", body=Thing, returns=Thing,
                scope=Scope.SUBMIT, errors=(NotLeader,),
            ),
            Route(
                method="GET", path="/v1/things/{name}", handler=self.show, summary="Show.", query=Window,
                returns=dict[str, Any],
            ),
            Route(
                method="DELETE", path="/v1/things/{name}", handler=self.nothing, summary="Drop.", scope=Scope.OPERATE,
            ),
            Route(
                method="GET", path="/healthz", handler=self.health, summary="Alive?", scope=Scope.PUBLIC,
                media="text/plain",
            ),
            Route(
                method="GET", path="/v1/events", handler=self.stream, summary="Follow.", media="application/jsonl",
                stream=True,
            ),
        ]  # fmt: skip


@asynccontextmanager
async def served(**limits: Any):
    api = Things()
    app = Api(
        api.routes(),
        title="Things",
        version="1",
        authority=Authority({READ: Scope.READ, SUBMIT: Scope.SUBMIT}),
        leader=lambda: "n2",
        limits=HttpLimits(**limits) if limits else None,
        observe=lambda method, path, status, seconds: api.observed.append((method, path, status)),
    )
    listener = await AiohttpNetwork().listen("127.0.0.1:0", api=app, key="replica.listen_api")
    try:
        async with aiohttp.ClientSession(f"http://{listener.address}") as http:
            yield api, http
    finally:
        await listener.close()


def auth(token: str = SUBMIT) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def problem(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem document, with everything one must have."""
    assert answer.content_type == "application/problem+json"
    document = json.loads(await answer.read())
    assert document["status"] == answer.status
    assert {"type", "title", "detail", "code", "hint", "retryable", "outcome", "leader"} <= set(document)
    assert document["hint"]
    return document


async def test_a_good_call_is_decoded_and_answered_as_json():
    async with served() as (_, http):
        async with http.post("/v1/things", json={"name": "a", "count": 3}, headers=auth()) as answer:
            assert (answer.status, await answer.json()) == (200, {"name": "A", "count": 3})
        async with http.get("/v1/things/x%2Fy?since=7&stale=true", headers=auth(READ)) as answer:
            assert await answer.json() == {"name": "x/y", "since": 7, "stale": True}


@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        (b'{"name": "a", "count": "3"}', "$.count", "Expected `int`"),
        (b'{"name": "a", "cuont": 3}', "$", "cuont"),
        (b'{"name": "a", "count": 0}', "$.count", ">= 1"),
        (b'{"count": 1}', "$", "name"),
        (b'{"name": ', "$", "JSON"),
        (b'{"name": "\xff"}', "$", "JSON"),
        (b"", "$", "JSON"),
        (b"[" * 100_000, "$", "Expected `object`"),
        (b'{"name": ' + b"[" * 100_000, "$.name", "Expected `str`"),
    ],
)
async def test_a_bad_body_is_400_with_the_path_of_the_field(body, path, said):
    async with served() as (_, http):
        headers = {**auth(), "Content-Type": "application/json"}
        async with http.post("/v1/things", data=body, headers=headers) as answer:
            document = await problem(answer)
            assert (answer.status, document["code"], document["details"]["path"]) == (400, "bad-request", path)
            assert said in document["detail"]


@pytest.mark.parametrize("query", ["since=x", "sinse=1", "since=1&since=2", "stale=maybe"])
async def test_a_bad_query_parameter_is_400_and_named(query):
    async with served() as (_, http), http.get(f"/v1/things/a?{query}", headers=auth()) as answer:
        document = await problem(answer)
        assert (answer.status, document["code"]) == (400, "bad-request")
        assert document["details"]["path"].startswith("?s")


async def test_a_wrong_or_missing_token_is_401_and_a_small_scope_403():
    async with served() as (api, http):
        for headers in ({}, auth("wrong-token"), {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer "}):
            async with http.get("/v1/things/a", headers=headers) as answer:
                assert (answer.status, (await problem(answer))["code"]) == (401, "unauthorized")
        assert api.entered == 0
        async with http.post("/v1/things", json={"name": "a"}, headers=auth(READ)) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (403, "forbidden")
        async with http.delete("/v1/things/a", headers=auth(SUBMIT)) as answer:
            assert answer.status == 403


async def test_public_routes_need_no_token():
    async with served() as (_, http):
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with http.get("/openapi.json") as answer:
            assert answer.status == 200


async def test_unknown_paths_and_methods_are_problems_too():
    async with served() as (api, http):
        async with http.get("/v2/what", headers=auth()) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (404, "not-found")
        async with http.put("/v1/things", json={}, headers=auth()) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (405, "method-not-allowed")
            assert answer.headers["Allow"] == "POST"
        assert ("PUT", "/v1/things", 405) in api.observed or ("PUT", "", 405) in api.observed


async def test_a_body_over_the_limit_is_413_whether_announced_or_not():
    async def chunks():
        for _ in range(20):
            yield b"x" * 1000

    async with served(body_bytes_max=4096) as (_, http):
        headers = {**auth(), "Content-Type": "application/json"}
        async with http.post("/v1/things", data=b"x" * 5000, headers=headers) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (413, "body-too-large")
        async with http.post("/v1/things", data=chunks(), headers=headers) as answer:
            assert answer.status == 413


async def test_a_claim_of_a_gigabyte_is_413_at_once():
    async with served() as (_, http):
        host, port = http._base_url.host, http._base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"POST /v1/things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SUBMIT}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {1 << 30}\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            assert b" 413 " in await reader.readline()
        writer.close()


async def test_another_content_type_is_415():
    async with served() as (_, http), http.post("/v1/things", data=b"name=a", headers=auth()) as answer:
        assert (answer.status, (await problem(answer))["code"]) == (415, "unsupported-media-type")


async def test_a_body_that_does_not_arrive_is_408():
    async with served(body_timeout_s=0.2) as (_, http):
        host, port = http._base_url.host, http._base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"POST /v1/things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SUBMIT}\r\n"
            f"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_an_unexpected_exception_is_500_and_the_connection_goes_on():
    async with served() as (api, http):
        api.raises = ZeroDivisionError("inner secret")
        async with http.get("/v1/things/a", headers=auth()) as answer:
            document = await problem(answer)
            assert (answer.status, document["code"], document["outcome"]) == (500, "internal", "unknown")
            assert "inner secret" not in str(document)
            assert answer.headers.get("Connection") != "close"
        api.raises = None
        async with http.get("/v1/things/a", headers=auth()) as answer:
            assert answer.status == 200


async def test_errors_carry_code_outcome_and_leader():
    async with served() as (api, http):
        cases = [
            (NotLeader("no", hint="ask n3", leader="n3"), 503, "not-leader", True, "not-done", "n3"),
            (OutcomeUnknown("no", hint="ask again"), 504, "outcome-unknown", True, "unknown", "n2"),
            (NotFound("no", hint="look"), 404, "not-found", False, "not-done", "n2"),
            (
                PeerError("full", hint="wait", code="log-full", retryable=False, outcome="unknown", details={}),
                507, "log-full", False, "unknown", "n2",
            ),
        ]  # fmt: skip
        for error, status, code, retryable, outcome, leader in cases:
            api.raises = error
            async with http.get("/v1/things/a", headers=auth()) as answer:
                document = await problem(answer)
                assert answer.status == status
                got = (document["code"], document["retryable"], document["outcome"], document["leader"])
                assert got == (code, retryable, outcome, leader)


async def test_calls_past_the_limit_are_429_and_streams_do_not_count():
    async with served(requests_max=2) as (api, http):
        api.hold = asyncio.Event()
        waiting = [asyncio.create_task(http.get("/v1/things/a", headers=auth())) for _ in range(2)]
        await until(lambda: api.entered == 2, "two calls are in progress")
        async with http.get("/v1/things/a", headers=auth()) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (429, "too-many-requests")
        async with http.get("/v1/events", headers=auth()) as answer:
            assert (await answer.read()).count(b"\n") == 3
        api.hold.set()
        for task in waiting:
            (await task).close()


async def test_headers_and_request_lines_that_are_too_long_are_refused():
    async with served() as (_, http):
        async with http.get("/healthz", headers={"X-Long": "x" * 20_000}) as answer:
            assert answer.status == 400
        async with http.get("/" + "x" * 20_000) as answer:
            assert answer.status == 400
        async with http.get("/healthz") as answer:
            assert answer.status == 200


async def test_the_description_lists_every_route_with_schemas_and_errors():
    async with served() as (_, http), http.get("/openapi.json") as answer:
        document = await answer.json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/v1/things", "/v1/things/{name}", "/healthz", "/v1/events"}
    post = document["paths"]["/v1/things"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Thing"}
    assert {"200", "400", "401", "403", "413", "415", "429", "500", "503"} <= set(post["responses"])
    assert "not-leader" in post["responses"]["503"]["description"]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    names = [p["name"] for p in document["paths"]["/v1/things/{name}"]["get"]["parameters"]]
    assert names == ["name", "since", "stale"]
    assert {"Problem", "Thing"} <= set(document["components"]["schemas"])


async def test_a_port_in_use_is_said_with_port_setting_and_remedy():
    first = await listen(web.Application(), "127.0.0.1:0", key="replica.listen_api")
    try:
        with pytest.raises(PortInUse) as caught:
            await listen(web.Application(), first.address, key="replica.listen_api")
        assert caught.value.code == "port-in-use"
        assert str(first.port) in caught.value.message
        assert "replica.listen_api" in caught.value.message
        assert "free port" in caught.value.hint
    finally:
        await first.close()


async def test_the_networks_own_client_makes_calls_and_tells_what_was_never_sent():
    async with served() as (_, http), AiohttpNetwork().client() as client:
        address = str(http._base_url.authority)  # type: ignore[union-attr]
        stored = await client.call(address, "POST", "/v1/things", headers=auth(), body=b'{"name": "a", "count": 3}')
        assert (stored.status, json.loads(stored.body)) == (200, {"name": "A", "count": 3})
        shown = await client.call(address, "GET", "/v1/things/x%2Fy?since=7", headers=auth(READ))
        assert json.loads(shown.body)["name"] == "x/y"
        refused = await client.call(address, "GET", "/v1/things/x", headers={})
        assert (refused.status, json.loads(refused.body)["code"]) == (401, "unauthorized")
    async with AiohttpNetwork().client() as client:
        with pytest.raises(DialFailed):
            await client.call(address, "GET", "/healthz", headers={})
