"""One table of routes that serves, checks and describes an HTTP API.

Owns: tokens, limits, decoding, and how every error becomes a problem document.
Must not know: what any route does.  The same table makes ``/openapi.json`` (`cluster.openapi`).

A handler gets a `Call` and returns a struct (sent as JSON), bytes or text (sent as the route's media type) or None
(204); that of a stream answers by `Request.begin`, and what it returns does not matter.  It raises `SkerryError`
for what can be acted upon; anything else is our bug: logged, answered 500 ``internal``, and the connection goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec
import structlog
from msgspec import Struct

from cluster.errors import (
    BadRequest,
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TooManyRequests,
    UnsupportedMediaType,
)
from cluster.network import Answer, Request
from cluster.openapi import describe
from cluster.paths import Found, Paths
from cluster.problems import STATUSES, Problem, problem_answer, problem_of
from cluster.security import Authority, Scope
from raft.errors import SkerryError

JSON = "application/json"
_PATHS_HINT = "GET /openapi.json of the API lists its paths"


class HttpLimits(Struct, frozen=True):
    """Bounds of one application; those of connections are in `cluster.sockets.ListenLimits`."""

    body_bytes_max: int = 1 << 20
    body_timeout_s: float = 10.0
    requests_max: int = 512
    streams_max: int = 256


class Call(Struct):
    """One request, checked and decoded.

    Attributes:
        request: for streams and headers.
        path: the path's parameters, percent-decoded.
        body: decoded to the route's `body` type, or None.
        query: decoded to the route's `query` type, or None.
        scope: what the caller's token allows.
    """

    request: Request
    path: dict[str, str]
    body: Any
    query: Any
    scope: Scope


Handler = Callable[[Call], Awaitable[Any]]


class Route(Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: with its parameters: ``/v1/jobs/{namespace}/{name}``.
        handler: see the module.
        summary: one line for people.
        body: msgspec type of the JSON body; None = no body is read.
        query: struct of query parameters, each scalar and with a default or required; None = none are allowed.
        returns: msgspec type of the answer; None with `media` other than JSON.
        errors: classes whose codes the description lists.
        scope: what a token needs; PUBLIC needs none.
        status: of success.
        media: content type of a bytes, text or stream answer.
        stream: holds its connection open; counted against `streams_max` instead of `requests_max`.
        body_bytes_max: overrides the application's bound.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    query: type[Struct] | None = None
    returns: Any = None
    errors: tuple[type[SkerryError], ...] = ()
    scope: Scope = Scope.READ
    status: int = 200
    media: str = JSON
    stream: bool = False
    body_bytes_max: int | None = None


class Api:
    """Serves exactly the routes of a table, and ``GET /openapi.json``; satisfies `cluster.network.Application`.

    Args:
        routes: the table.
        title: of the description.
        version: of the description.
        authority: knows the tokens.
        leader: who leads, for problem documents.
        statuses: HTTP status by error code, for codes of packages above.
        limits: bounds.
        observe: called after each request with method, route path ("" = none), status and seconds.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        title: str,
        version: str,
        authority: Authority,
        leader: Callable[[], str | None] = lambda: None,
        statuses: Mapping[str, int] | None = None,
        limits: HttpLimits | None = None,
        observe: Callable[[str, str, int, float], None] | None = None,
    ) -> None:
        self.limits = limits or HttpLimits()
        self._statuses = {**STATUSES, **(statuses or {})}
        self._authority = authority
        self._leader = leader
        self._observe = observe
        self._requests = 0
        self._streams = 0
        self._log = structlog.get_logger("http")
        self._description: bytes | None = None
        self._describe = partial(describe, routes, title=title, version=version, statuses=self._statuses)
        described = Route(
            method="GET", path="/openapi.json", handler=self._openapi, summary="This description.", scope=Scope.PUBLIC
        )
        self._paths: Paths[Bound] = Paths()
        for route in (*routes, described):
            self._paths.add(route.path, route.method, Bound(route))

    async def answer(self, request: Request) -> Answer | None:
        """Answer one request, whatever goes wrong; None when a stream went out."""
        clock = asyncio.get_running_loop().time
        started = clock()
        found = self._paths.find(request.path)
        answer = await self._guarded(request, found)
        if self._observe is not None:
            path = found.path if found is not None else ""
            self._observe(request.method, path, answer.status if answer is not None else 200, clock() - started)
        return answer

    async def _guarded(self, request: Request, found: Found[Bound] | None) -> Answer | None:
        """Every exception becomes a problem document."""
        headers: dict[str, str] = {}
        try:
            if found is None:
                raise NotFound(f"nothing is at {unquote(request.path)[:200]}", hint=_PATHS_HINT)
            bound = found.by_method.get(request.method)
            if bound is None:
                allowed = ", ".join(sorted(found.by_method))
                headers = {"Allow": allowed.replace(" ", "")}
                raise MethodNotAllowed(
                    f"{request.method} is not for {unquote(request.path)[:200]}", hint=f"use {allowed}"
                )
            return await self._handle(bound, request, found.parameters)
        except SkerryError as error:
            failure = error
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            self._log.exception("a handler failed unexpectedly", method=request.method, path=request.path[:200])
            failure = SkerryError(
                "an unexpected error in this replica",
                hint="see its log; a change may have taken effect: ask again with the same request id",
            )
            return problem_answer(msgspec.structs.replace(self._problem(failure), outcome="unknown"))
        return problem_answer(self._problem(failure), headers)

    async def _handle(self, bound: Bound, request: Request, parameters: dict[str, str]) -> Answer | None:
        route = bound.route
        scope = self._authority.check(request.header("Authorization"), route.scope)
        with _Slot(self, route.stream):
            query = _query(request, route.query)
            body = await self._body(bound, request) if bound.decoder is not None else None
            result = await route.handler(Call(request, parameters, body, query, scope))
            return None if route.stream else _answer(route, result)

    async def _body(self, bound: Bound, request: Request) -> Any:
        assert bound.decoder is not None, "only routes with a body read one"
        media = request.header("Content-Type").partition(";")[0].strip().lower() or "application/octet-stream"
        if media != JSON:
            raise UnsupportedMediaType(
                f"the body is sent as {media[:100]}", hint=f"send JSON with Content-Type: {JSON}"
            )
        bytes_max = bound.route.body_bytes_max or self.limits.body_bytes_max
        too_large = BodyTooLarge(f"the body has over {bytes_max} bytes", hint="send less", bytes_max=bytes_max)
        if request.length is not None and request.length > bytes_max:
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                async for chunk in request.body():
                    data += chunk
                    if len(data) > bytes_max:
                        raise too_large
        except TimeoutError:
            raise RequestTimeout(
                f"the body did not arrive within {self.limits.body_timeout_s:g} s", hint="send it at once"
            ) from None
        return _decode(bound.decoder, bytes(data))

    async def _openapi(self, call: Call) -> bytes:
        if self._description is None:
            self._description = msgspec.json.encode(self._describe())
        return self._description

    def _problem(self, error: SkerryError) -> Problem:
        return problem_of(error, self._leader(), self._statuses)


class Bound:
    """A route with what it needs at each call."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.decoder = msgspec.json.Decoder(route.body) if route.body is not None else None


class _Slot:
    """One of the calls, or streams, handled at once."""

    def __init__(self, server: Api, stream: bool) -> None:
        self._server = server
        self._stream = stream

    def __enter__(self) -> None:
        server = self._server
        if self._stream:
            if server._streams >= server.limits.streams_max:
                raise TooManyRequests("too many streams are open here", hint="close some, or ask another replica")
            server._streams += 1
        else:
            if server._requests >= server.limits.requests_max:
                raise TooManyRequests("too many calls are in progress here", hint="retry a little later")
            server._requests += 1

    def __exit__(self, *_: object) -> None:
        if self._stream:
            self._server._streams -= 1
        else:
            self._server._requests -= 1


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        path = path.strip("`") or "$"
        raise BadRequest(f"{message} at {path}", hint="GET /openapi.json has the schema", path=path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", hint="send one JSON document", path="$") from None


def _query(request: Request, query: type[Struct] | None) -> Any:
    """Query parameters as the route's struct; unknown and repeated ones are refused."""
    given: dict[str, str] = {}
    for name, value in request.query:
        if name in given:
            raise BadRequest(f"query parameter {name[:64]!r} is given twice", hint="give it once", path=f"?{name[:64]}")
        given[name] = value
    known = {field.encode_name for field in msgspec.structs.fields(query)} if query is not None else set()
    for name in given:
        if name not in known:
            hint = f"known here: {', '.join(sorted(known)) or 'none'}"
            raise BadRequest(f"unknown query parameter {name[:64]!r}", hint=hint, path=f"?{name[:64]}")
    if query is None:
        return None
    try:
        return msgspec.convert(given, query, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        path = "?" + path.strip("`").removeprefix("$.")
        raise BadRequest(f"{message} at {path}", hint="GET /openapi.json has the schema", path=path) from None


def _answer(route: Route, result: Any) -> Answer:
    if result is None:
        return Answer(204, media="")
    if isinstance(result, str):
        return Answer(route.status, result.encode(), f"{route.media}; charset=utf-8")
    return Answer(route.status, result if isinstance(result, bytes) else msgspec.json.encode(result), route.media)
