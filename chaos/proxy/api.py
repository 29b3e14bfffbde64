"""Toxiproxy's HTTP API over a registry, and our byte counters.

Owns: paths, status codes, the shape of errors, the token, the limits of a request.
Must not know: how proxies and toxics work.

Compatible with Toxiproxy 2.x as toxiproxy-python, its Go client and its command line use it:
updates by POST (before 2.6) and PATCH; ``/version`` as JSON (since 2.7); the bearer token of
2.13.  Ours: ``GET /counters`` and ``GET /proxies/{proxy}/counters``.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric

from chaos.proxy.registry import Exists, NotFound, Registry
from chaos.proxy.relay import Relay
from chaos.proxy.toxic import STREAMS, BadRequest

VERSION = "2.12.0+skerry"
BODY_BYTES_MAX = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text, "status": status}, status=status)


def _guard(token: str | None) -> Any:
    expected = None if token is None else f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse browsers and callers without the token; turn failures into Toxiproxy's errors."""
        if request.headers.get("User-Agent", "").startswith("Mozilla/"):
            return _error(403, "User agent not allowed")
        if expected is not None:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                return _error(401, "a bearer token is needed")
        try:
            return await handler(request)
        except BadRequest as error:
            return _error(400, str(error))
        except NotFound as error:
            return _error(404, str(error))
        except Exists as error:
            return _error(409, str(error))
        except OSError as error:
            return _error(500, str(error))
        except web.HTTPException as error:
            if error.status >= 400:
                return _error(error.status, error.reason)
            raise

    return guard


async def _body(request: web.Request) -> Any:
    raw = await request.read()  # raises HTTPRequestEntityTooLarge past BODY_BYTES_MAX
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest("bad request body: not JSON") from None


def _changed(relay: Relay, status: int = 200) -> web.Response:
    return web.json_response(relay.document(), status=status)


class Api:
    """The handlers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def list_proxies(self, request: web.Request) -> web.Response:
        """GET /proxies."""
        return web.json_response({name: relay.document() for name, relay in self._registry.relays().items()})

    async def create_proxy(self, request: web.Request) -> web.Response:
        """POST /proxies."""
        return _changed(await self._registry.create(await _body(request)), 201)

    async def populate(self, request: web.Request) -> web.Response:
        """POST /populate."""
        relays = await self._registry.populate(await _body(request))
        return web.json_response({"proxies": [relay.document() for relay in relays]}, status=201)

    async def get_proxy(self, request: web.Request) -> web.Response:
        """GET /proxies/{proxy}."""
        return _changed(self._registry.get(request.match_info["proxy"]))

    async def update_proxy(self, request: web.Request) -> web.Response:
        """POST or PATCH /proxies/{proxy}."""
        name = request.match_info["proxy"]
        self._registry.get(name)
        return _changed(await self._registry.update(name, await _body(request)))

    async def delete_proxy(self, request: web.Request) -> web.Response:
        """DELETE /proxies/{proxy}."""
        await self._registry.delete(request.match_info["proxy"])
        return web.Response(status=204)

    async def list_toxics(self, request: web.Request) -> web.Response:
        """GET /proxies/{proxy}/toxics."""
        relay = self._registry.get(request.match_info["proxy"])
        return web.json_response([toxic.document() for toxic in relay.toxics.values()])

    async def create_toxic(self, request: web.Request) -> web.Response:
        """POST /proxies/{proxy}/toxics."""
        name = request.match_info["proxy"]
        self._registry.get(name)
        return web.json_response(self._registry.add_toxic(name, await _body(request)).document())

    async def get_toxic(self, request: web.Request) -> web.Response:
        """GET /proxies/{proxy}/toxics/{toxic}."""
        found = self._registry.get_toxic(request.match_info["proxy"], request.match_info["toxic"])
        return web.json_response(found.document())

    async def update_toxic(self, request: web.Request) -> web.Response:
        """POST or PATCH /proxies/{proxy}/toxics/{toxic}."""
        body = await _body(request)
        names = request.match_info
        return web.json_response(self._registry.update_toxic(names["proxy"], names["toxic"], body).document())

    async def delete_toxic(self, request: web.Request) -> web.Response:
        """DELETE /proxies/{proxy}/toxics/{toxic}."""
        self._registry.remove_toxic(request.match_info["proxy"], request.match_info["toxic"])
        return web.Response(status=204)

    async def reset(self, request: web.Request) -> web.Response:
        """POST /reset."""
        await self._registry.reset()
        return web.Response(status=204)

    async def version(self, request: web.Request) -> web.Response:
        """GET /version."""
        return web.json_response({"version": VERSION})

    async def counters(self, request: web.Request) -> web.Response:
        """GET /counters."""
        return web.json_response({name: relay.counters_document() for name, relay in self._registry.relays().items()})

    async def proxy_counters(self, request: web.Request) -> web.Response:
        """GET /proxies/{proxy}/counters."""
        return web.json_response(self._registry.get(request.match_info["proxy"]).counters_document())

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        collected = CollectorRegistry(auto_describe=False)
        collected.register(_Metrics(self._registry))
        return web.Response(body=generate_latest(collected), content_type="text/plain", charset="utf-8")


class _Metrics:
    """Toxiproxy's own metric names, and what we threw away."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> list[Metric]:
        """One sample a proxy and stream."""
        labels = ["direction", "listener", "proxy", "upstream"]
        families = {
            "received": CounterMetricFamily("toxiproxy_proxy_received_bytes", "Bytes read.", labels=labels),
            "forwarded": CounterMetricFamily("toxiproxy_proxy_sent_bytes", "Bytes passed on.", labels=labels),
            "discarded": CounterMetricFamily("skerry_proxy_discarded_bytes", "Bytes thrown away.", labels=labels),
        }
        for name, relay in self._registry.relays().items():
            for stream in STREAMS:
                for key, value in relay.counters[stream].document().items():
                    families[key].add_metric([stream, relay.spec.listen, name, relay.spec.upstream], value)
        return list(families.values())


def application(registry: Registry, *, token: str | None = None) -> web.Application:
    """The API as an aiohttp application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_guard(token)])
    api, proxy, toxic = Api(registry), "/proxies/{proxy}", "/proxies/{proxy}/toxics/{toxic}"
    app.add_routes(
        [
            web.get("/proxies", api.list_proxies),
            web.post("/proxies", api.create_proxy),
            web.post("/populate", api.populate),
            web.get(proxy, api.get_proxy),
            web.post(proxy, api.update_proxy),
            web.patch(proxy, api.update_proxy),
            web.delete(proxy, api.delete_proxy),
            web.get(proxy + "/counters", api.proxy_counters),
            web.get(proxy + "/toxics", api.list_toxics),
            web.post(proxy + "/toxics", api.create_toxic),
            web.get(toxic, api.get_toxic),
            web.post(toxic, api.update_toxic),
            web.patch(toxic, api.update_toxic),
            web.delete(toxic, api.delete_toxic),
            web.post("/reset", api.reset),
            web.get("/version", api.version),
            web.get("/counters", api.counters),
            web.get("/metrics", api.metrics),
        ]
    )
    return app
