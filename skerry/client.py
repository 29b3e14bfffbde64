"""The Python client: every call of the HTTP API, from any replica.

Owns: finding a replica that answers, asking again with the same request id while an outcome
is unknown, and turning problem documents into `ApiError`.  Must not know: the command line.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from raft.errors import OutcomeUnknown, SkerryError
from skerry.errors import ApiError, Unreachable

CHECK_HINT = "is the cluster running, and is the address right?"

LINE_BYTES_MAX = 1 << 20
RETRY_PAUSE_S = 0.1
ATTEMPT_S_MIN = 0.5
"""Shortest patience with one replica before the next is asked; a call's time is shared among them."""
CONNECT_TIMEOUT_S = 2.0
UNREACHABLE_ROUNDS_MAX = 20
"""Rounds over all addresses, `RETRY_PAUSE_S` apart, in which none could be reached at all."""


class Client:
    """A connection to a cluster.

    Args:
        addresses: base URLs of replica APIs, such as ``http://127.0.0.1:4001``; any one may answer.
        token: the API token.
        timeout_s: how long one call may take, with its retries.

    Example:
        >>> async with Client(["http://127.0.0.1:4001"], token="…") as client:
        ...     await client.submit({"name": "hello", "kind": "batch", "command": ["/bin/echo", "hi"]})
    """

    def __init__(self, addresses: Sequence[str], *, token: str, timeout_s: float = 10.0) -> None:
        if not addresses:
            raise Unreachable("no address was given", hint="pass at least one replica's API address")
        self._addresses = [_base_url(address) for address in addresses]
        self._token = token
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            read_bufsize=LINE_BYTES_MAX,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # --- jobs -------------------------------------------------------------------------------

    async def submit(
        self, job: Mapping[str, Any], *, request_id: str | None = None, expected_version: int | None = None
    ) -> dict[str, Any]:
        """Create or replace a job; acknowledged only once durable on a majority.

        The same `request_id` asked again is the same job; without one a fresh id is drawn, and
        every retry of this call repeats it.

        Returns:
            ``{v, job, version, index, state}``.

        Raises:
            ApiError: refused; ``outcome`` says whether it may still happen.
            Unreachable: no replica could be reached; it certainly did not happen.
            OutcomeUnknown: it may have happened or may still; ask again with the same request id.
        """
        body: dict[str, Any] = {"job": dict(job), "request_id": request_id or new_request_id()}
        if expected_version is not None:
            body["expected_version"] = expected_version
        return await self._call("POST", "/v1/jobs", body)

    async def stop(self, job: str, *, request_id: str | None = None) -> dict[str, Any]:
        """Stop every allocation of a job."""
        return await self._call("POST", f"{_job_path(job)}/stop", {"request_id": request_id or new_request_id()})

    async def jobs(self) -> dict[str, Any]:
        """All jobs."""
        return await self._call("GET", "/v1/jobs")

    async def job(self, job: str) -> dict[str, Any]:
        """One job with its allocations; `job` is ``name`` or ``namespace/name``."""
        return await self._call("GET", _job_path(job))

    async def explain(self, job: str) -> dict[str, Any]:
        """Why the job is where it is, or why it waits."""
        namespace, name = split_job(job)
        return await self._call("GET", f"/v1/explain/{namespace}/{name}")

    # --- nodes and the cluster --------------------------------------------------------------

    async def nodes(self) -> dict[str, Any]:
        """All nodes."""
        return await self._call("GET", "/v1/nodes")

    async def node(self, node: str) -> dict[str, Any]:
        """One node."""
        return await self._call("GET", _node_path(node))

    async def cordon(self, node: str, *, on: bool = True) -> dict[str, Any]:
        """Take a node out of placement, or (`on` False) back in."""
        return await self._call("POST", f"{_node_path(node)}/{'cordon' if on else 'uncordon'}", {})

    async def label(
        self, node: str, *, put: Mapping[str, str] | None = None, remove: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Give a node labels, and take given ones back by key."""
        return await self._call("POST", f"{_node_path(node)}/labels", {"put": dict(put or {}), "remove": list(remove)})

    async def taint(
        self, node: str, *, put: Sequence[Mapping[str, str]] = (), remove: Sequence[Mapping[str, str]] = ()
    ) -> dict[str, Any]:
        """Taint a node with ``{key, value, effect}``, and take given ones back by ``{key, effect}``."""
        body = {"put": [dict(taint) for taint in put], "remove": [dict(taint) for taint in remove]}
        return await self._call("POST", f"{_node_path(node)}/taints", body)

    async def status(self) -> dict[str, Any]:
        """The cluster's health; answers without a quorum too."""
        return await self._call("GET", "/v1/status")

    # --- streams ----------------------------------------------------------------------------

    async def logs(self, target: str, *, cursor: str = "", lines_max: int = 1000, wait_ms: int = 0) -> dict[str, Any]:
        """Lines of an allocation or a whole job: ``{lines[t, allocation, stream, text], cursor, ended}``."""
        query = {"cursor": cursor, "lines_max": str(lines_max), "wait_ms": str(wait_ms)}
        path = "/v1/logs/" + quote(target if "/" in target else f"default/{target}", safe="/.")
        return await self._call("GET", path, query=query, extra_s=wait_ms / 1000)

    async def events(self, *, since: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Committed changes from index `since` on, as they happen; one replica's stream."""
        assert self._session is not None, "use the client as an async context manager"
        url = f"{self._addresses[0]}/v1/events"
        try:
            async with self._session.get(url, params={"since": str(since)}) as response:
                if response.status >= 400:
                    raise await _problem(response)
                async for line in response.content:
                    yield msgspec.json.decode(line)
        except aiohttp.ClientConnectionError as error:
            raise Unreachable(f"the event stream of {url} broke: {error}", hint="ask again with since=") from None

    # --- one call -----------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        extra_s: float = 0.0,
    ) -> dict[str, Any]:
        """Ask the replicas in turn until one decides, or the time is up."""
        budget_s = self._timeout_s + extra_s
        attempt_s = max(ATTEMPT_S_MIN, self._timeout_s / len(self._addresses)) + extra_s
        last: SkerryError | None = None
        in_doubt = False  # a write that may have reached a replica, and has had no final answer
        unreachable_rounds = 0
        try:
            async with asyncio.timeout(budget_s):
                while unreachable_rounds < UNREACHABLE_ROUNDS_MAX:
                    unreachable_rounds += 1
                    for address in tuple(self._addresses):
                        before, in_doubt = in_doubt, method != "GET"
                        try:
                            async with asyncio.timeout(attempt_s):
                                return await self._once(method, address, path, body, query)
                        except TimeoutError:
                            last = Unreachable(f"no answer from {address} within {attempt_s:g} s", hint=CHECK_HINT)
                        except (ApiError, Unreachable, OutcomeUnknown) as error:
                            if not error.retryable:
                                raise
                            last, in_doubt = error, before or error.outcome == "unknown"
                        if isinstance(last, ApiError):
                            unreachable_rounds = 0
                        self._addresses.append(self._addresses.pop(0))
                    await asyncio.sleep(RETRY_PAUSE_S)
        except TimeoutError:
            pass
        if in_doubt:
            request_id = (body or {}).get("request_id")
            raise OutcomeUnknown(
                f"no final answer within {budget_s:g} s, it may have been done, or may be yet ({last or 'no answer'})",
                hint=f"ask again with --request-id {request_id}" if request_id else "look, and ask again",
                request_id=request_id,
            )
        raise last or Unreachable(f"no answer within {budget_s:g} s from {', '.join(self._addresses)}", hint=CHECK_HINT)

    async def _once(
        self, method: str, address: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str] | None
    ) -> dict[str, Any]:
        assert self._session is not None, "use the client as an async context manager"
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if data is not None else None
        try:
            async with self._session.request(
                method, address + path, data=data, params=query, headers=headers
            ) as response:
                if response.status >= 400:
                    raise await _problem(response)
                answer: dict[str, Any] = msgspec.json.decode(await response.read())
                return answer
        except (aiohttp.ClientError, ConnectionError) as error:
            cause: object = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else error
            why = f"no answer from {address}: {cause or type(error).__name__}"
            if method == "GET" or isinstance(error, aiohttp.ClientConnectorError):
                raise Unreachable(why, hint=CHECK_HINT) from None
            raise OutcomeUnknown(why, hint=CHECK_HINT) from None  # it broke after the call was sent


def new_request_id() -> str:
    """A fresh request id."""
    return f"req-{secrets.token_hex(8)}"


def split_job(job: str) -> tuple[str, str]:
    """``name`` or ``namespace/name`` as (namespace, name), ready for a path."""
    namespace, _, name = job.rpartition("/")
    return quote(namespace or "default", safe=""), quote(name, safe="")


def _node_path(node: str) -> str:
    return f"/v1/nodes/{quote(node, safe='')}"


def _job_path(job: str) -> str:
    namespace, name = split_job(job)
    return f"/v1/jobs/{namespace}/{name}"


def _base_url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    return url.rstrip("/")


async def _problem(response: aiohttp.ClientResponse) -> ApiError:
    raw = await response.read()
    try:
        problem = msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {"detail": f"HTTP {response.status} from {response.url}: {raw[:200]!r}"}
    return ApiError(problem, response.status)
