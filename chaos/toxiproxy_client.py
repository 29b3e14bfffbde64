"""toxiproxy-python, made fit for asyncio: one thread, time-outs, honest errors, the token.

Owns: everything that is peculiar to that package.  Must not know: links, scenarios.

The package blocks without a time-out, keeps host and port in class attributes, opens a TCP
connection a call, takes a 500 or 401 for JSON of a proxy, and knows no token.  So all calls of
this process run in one thread, each sets host and port first, and its `requests` is replaced by
a session of ours that has a deadline and turns what it does not understand into errors.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from msgspec import Struct

from chaos.errors import ProxyRefused, ProxyUnreachable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # written for Python 2 and 3 at once
    import requests
    import toxiproxy
    from toxiproxy import api as _api
    from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

Result = TypeVar("Result")

CALL_TIMEOUT_S = 5.0

_thread = ThreadPoolExecutor(1, "toxiproxy")


class ToxicCall(Struct, frozen=True):
    """One toxic to create."""

    proxy: str
    name: str
    type: str
    stream: str
    attributes: dict[str, int]
    toxicity: float = 1.0


class _Requests:
    """Stands where the package expects the module `requests`; belongs to the one thread."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False  # no proxies from the environment: this talks to the cluster's own
        self._token: str | None = None
        self._timeout_s = CALL_TIMEOUT_S

    def prepare(self, token: str | None, timeout_s: float) -> None:
        """Set what the next calls use."""
        self._token, self._timeout_s = token, timeout_s

    def get(self, **call: Any) -> Any:
        """Like `requests.get`."""
        return self._call("GET", call)

    def post(self, **call: Any) -> Any:
        """Like `requests.post`."""
        return self._call("POST", call)

    def delete(self, **call: Any) -> Any:
        """Like `requests.delete`."""
        return self._call("DELETE", call)

    def _call(self, method: str, call: dict[str, Any]) -> Any:
        call.setdefault("timeout", self._timeout_s)
        headers = {"User-Agent": "skerry-chaos", **(call.pop("headers", None) or {})}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        answer = self._session.request(method, headers=headers, **call)
        if answer.status_code >= 500 or answer.status_code in (401, 403, 413):
            raise ProxyRefused(f"the proxy answered {answer.status_code}: {_reason(answer)}")
        return answer


def _reason(answer: Any) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return str(answer.text)[:200]


_requests = _Requests()
_api.requests = _requests


def _said(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


class ToxiproxyClient:
    """A Toxiproxy server (ours or Shopify's), driven from asyncio.

    Args:
        api: base URL, such as ``http://127.0.0.1:8474``.
        token: bearer token, if the server wants one (2.13).
        timeout_s: of each HTTP request.
    """

    def __init__(self, api: str, *, token: str | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        found = urlsplit(api if "//" in api else f"//{api}")
        self.api = api
        self._host, self._port = found.hostname or "127.0.0.1", found.port or 8474
        self._token = token
        self._timeout_s = timeout_s
        self._server = toxiproxy.Toxiproxy()

    async def version(self) -> str:
        """What the server calls itself."""
        raw = await self._call(lambda: self._server.version())
        if raw is None:
            raise ProxyUnreachable(f"no proxy answers at {self.api}", hint="is the chaos proxy running?")
        return str(raw.decode("utf-8", "replace"))

    async def proxies(self) -> dict[str, bool]:
        """Every proxy's name, and whether it is enabled."""
        found = await self._call(lambda: self._server.proxies())
        return {name: bool(proxy.enabled) for name, proxy in found.items()}

    async def toxics(self) -> list[tuple[str, str]]:
        """All (proxy, toxic) in force."""

        def collect() -> list[tuple[str, str]]:
            listed = _api.APIConsumer.get("/proxies").json()
            return [(name, toxic["name"]) for name, proxy in listed.items() for toxic in proxy.get("toxics") or []]

        return await self._call(collect)

    async def add_toxics(self, calls: Iterable[ToxicCall]) -> None:
        """Create all, one after the other; the first failure ends it."""
        wanted = list(calls)

        def create() -> None:
            for call in wanted:
                self._proxy(call.proxy).add_toxic(
                    name=call.name,
                    type=call.type,
                    stream=call.stream,
                    toxicity=call.toxicity,
                    attributes=call.attributes,
                )

        await self._call(create, requests_made=len(wanted))

    async def remove_toxics(self, names: Iterable[tuple[str, str]]) -> None:
        """Remove all (proxy, toxic); those already gone are fine."""
        wanted = list(names)

        def remove() -> None:
            for proxy, toxic in wanted:
                try:
                    self._proxy(proxy).destroy_toxic(quote(toxic, safe=""))
                except NotFound:
                    continue

        await self._call(remove, requests_made=len(wanted))

    async def set_enabled(self, proxy: str, enabled: bool) -> None:
        """Enable or disable (refuse connections)."""
        handle = self._proxy(proxy)
        await self._call(handle.enable if enabled else handle.disable)

    async def reset(self) -> None:
        """Remove every toxic and enable every proxy."""
        await self._call(lambda: self._server.reset())

    async def counters(self) -> dict[str, Any]:
        """Bytes by proxy and stream; our server only."""
        found: dict[str, Any] = await self._call(lambda: _api.APIConsumer.get("/counters").json())
        return found

    def _proxy(self, name: str) -> Any:
        """A handle without asking for the list of all proxies first."""
        return toxiproxy.Proxy(name=quote(name, safe="~"), upstream="", enabled=True, listen="")

    async def _call(self, function: Callable[[], Result], *, requests_made: int = 1) -> Result:
        """Run in the one thread.

        Raises:
            ProxyUnreachable: no answer in time, or none at all.
            ProxyRefused: an answer that refuses.
        """

        def in_thread() -> Result:
            self._server.update_api_consumer(self._host, self._port)
            _requests.prepare(self._token, self._timeout_s)
            return function()

        try:
            async with asyncio.timeout(self._timeout_s * (requests_made + 1)):
                return await asyncio.get_running_loop().run_in_executor(_thread, in_thread)
        except (requests.RequestException, OSError, TimeoutError) as error:
            raise ProxyUnreachable(
                f"the proxy at {self.api} does not answer: {error}", hint="is the chaos proxy running?"
            ) from None
        except (NotFound, InvalidToxic, ProxyExists) as error:
            raise ProxyRefused(f"the proxy refused: {_said(error)}") from None
        except (KeyError, ValueError, TypeError) as error:
            raise ProxyRefused(f"the proxy's answer was not understood: {error!r}") from None
