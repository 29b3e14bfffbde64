"""One table of routes that serves, checks and describes an HTTP API.

Owns: tokens, limits, decoding, and how every error becomes a problem document.
Must not know: what any route does.  The same table makes ``/openapi.json`` (`cluster.openapi`).

A handler gets a `Call` and returns a struct (sent as JSON), bytes or text (sent as the route's media type), None (204)
or a prepared ``web.StreamResponse`` (streams).  It raises `SkerryError` for what can be acted upon; anything else
is our bug: logged, answered 500 ``internal``, and the connection goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from cluster.errors import (
    BadRequest,
    BodyTooLarge,
    RequestTimeout,
    TooManyRequests,
    UnsupportedMediaType,
)
from cluster.openapi import describe
from cluster.problems import STATUSES, error_of, problem_of, problem_response
from cluster.security import Authority, Scope
from raft.errors import SkerryError

JSON = "application/json"


class HttpLimits(Struct, frozen=True):
    """Bounds of one application; those of connections are in `cluster.sockets.ListenLimits`."""

    body_bytes_max: int = 1 << 20
    body_timeout_s: float = 10.0
    requests_max: int = 512
    streams_max: int = 256


class Call(Struct):
    """One request, checked and decoded.

    Attributes:
        request: aiohttp's own, for streams and headers.
        path: the path's parameters, percent-decoded.
        body: decoded to the route's `body` type, or None.
        query: decoded to the route's `query` type, or None.
        scope: what the caller's token allows.
    """

    request: web.Request
    path: dict[str, str]
    body: Any
    query: Any
    scope: Scope


Handler = Callable[[Call], Awaitable[Any]]


class Route(Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: aiohttp's form: ``/v1/jobs/{namespace}/{name}``.
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


def build_app(
    routes: Sequence[Route],
    *,
    title: str,
    version: str,
    authority: Authority,
    leader: Callable[[], str | None] = lambda: None,
    statuses: Mapping[str, int] | None = None,
    limits: HttpLimits | None = None,
    observe: Callable[[str, str, int, float], None] | None = None,
) -> web.Application:
    """An application that serves exactly these routes and ``GET /openapi.json``.

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
    server = _Server(authority, leader, {**STATUSES, **(statuses or {})}, limits or HttpLimits(), observe)
    bounds = [route.body_bytes_max or 0 for route in routes]
    app = web.Application(
        middlewares=[server.middleware()], client_max_size=max([server.limits.body_bytes_max, *bounds]) + 1
    )
    for route in routes:
        app.router.add_route(route.method, route.path, server.bind(route))
    document = msgspec.json.encode(describe(routes, title=title, version=version, statuses=server.statuses))

    async def openapi(call: Call) -> bytes:
        return document

    described = Route(
        method="GET", path="/openapi.json", handler=openapi, summary="This description.", scope=Scope.PUBLIC
    )
    app.router.add_route("GET", described.path, server.bind(described))
    return app


class _Server:
    """What all handlers of an application share."""

    def __init__(
        self,
        authority: Authority,
        leader: Callable[[], str | None],
        statuses: Mapping[str, int],
        limits: HttpLimits,
        observe: Callable[[str, str, int, float], None] | None,
    ) -> None:
        self.limits = limits
        self.statuses = statuses
        self._authority = authority
        self._leader = leader
        self._observe = observe
        self._requests = 0
        self._streams = 0
        self._log = structlog.get_logger("http")

    def middleware(self) -> Any:
        """Turns every exception into a problem document."""

        @web.middleware
        async def problems(request: web.Request, handler: Any) -> web.StreamResponse:
            started = asyncio.get_running_loop().time()
            response = await self._answer(request, handler)
            if self._observe is not None:
                resource = request.match_info.route.resource
                path = resource.canonical if resource is not None else ""
                seconds = asyncio.get_running_loop().time() - started
                self._observe(request.method, path, response.status, seconds)
            return response

        return problems

    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            return await handler(request)  # type: ignore[no-any-return]
        except SkerryError as error:
            failure = error
        except web.HTTPException as error:
            failure = error_of(error, request)
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            self._log.exception("a handler failed unexpectedly", method=request.method, path=request.path[:200])
            failure = SkerryError(
                "an unexpected error in this replica",
                hint="see its log; a change may have taken effect: ask again with the same request id",
            )
            return problem_response(msgspec.structs.replace(self._problem(failure), outcome="unknown"))
        return problem_response(self._problem(failure), headers)

    def _problem(self, error: SkerryError) -> Any:
        return problem_of(error, self._leader(), self.statuses)

    def bind(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The aiohttp handler of a route."""
        decoder = msgspec.json.Decoder(route.body) if route.body is not None else None
        body_bytes_max = route.body_bytes_max or self.limits.body_bytes_max

        async def handle(request: web.Request) -> web.StreamResponse:
            scope = self._authority.check(request.headers.get("Authorization", ""), route.scope)
            with self._slot(route.stream):
                query = _query(request, route.query)
                body = await self._body(request, decoder, body_bytes_max) if decoder is not None else None
                result = await route.handler(Call(request, dict(request.match_info), body, query, scope))
                return _response(route, result)

        return handle

    def _slot(self, stream: bool) -> _Slot:
        return _Slot(self, stream)

    async def _body(self, request: web.Request, decoder: msgspec.json.Decoder[Any], bytes_max: int) -> Any:
        if request.content_type != JSON:
            raise UnsupportedMediaType(
                f"the body is sent as {request.content_type[:100]}", hint=f"send JSON with Content-Type: {JSON}"
            )
        too_large = BodyTooLarge(f"the body has over {bytes_max} bytes", hint="send less", bytes_max=bytes_max)
        if request.content_length is not None and request.content_length > bytes_max:
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                async for chunk in request.content.iter_any():
                    data += chunk
                    if len(data) > bytes_max:
                        raise too_large
        except TimeoutError:
            raise RequestTimeout(
                f"the body did not arrive within {self.limits.body_timeout_s:g} s", hint="send it at once"
            ) from None
        return _decode(decoder, bytes(data))


class _Slot:
    """One of the calls, or streams, handled at once."""

    def __init__(self, server: _Server, stream: bool) -> None:
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


def _query(request: web.Request, query: type[Struct] | None) -> Any:
    """Query parameters as the route's struct; unknown and repeated ones are refused."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
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


def _response(route: Route, result: Any) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=204)
    if isinstance(result, str):
        return web.Response(text=result, status=route.status, content_type=route.media)
    body = result if isinstance(result, bytes) else msgspec.json.encode(result)
    return web.Response(body=body, status=route.status, content_type=route.media)
