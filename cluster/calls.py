"""Requests between replicas: waiting for answers, and answering within limits.

Owns: pending requests, their deadlines and outcomes; the tasks that serve a peer's requests.
Must not know: sockets, or what any method does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from cluster.errors import PeerError, PeerNotReached, PeerUnreachable
from cluster.framing import REQUEST_BYTES_MAX, Answer, Failure, Request
from cluster.links import PeerLink
from cluster.trace import Tracer
from raft.errors import Overloaded, SkerryError

Serve = Callable[[str, str, bytes], Awaitable[bytes]]

LINK_PATIENCE_S = 0.5
"""A request waits this long for a link that is down, then fails as certainly not sent."""


class Pending(msgspec.Struct):
    """One request of ours that has no answer yet."""

    peer: str
    method: str
    future: asyncio.Future[bytes]


class Calls:
    """Both halves of request and answer.

    Args:
        tracer: numbers the messages.
        serve: carries out a peer's request (peer, method, body) → body.
        link_to: the outgoing link of a peer, or None.
        requests_max: requests of peers in progress at once; more are refused with ``overloaded``.
        routine: methods that are asked all the time; the trace samples their calls like heartbeats.
        log: bound structlog logger.
    """

    def __init__(
        self,
        tracer: Tracer,
        serve: Serve,
        link_to: Callable[[str], PeerLink | None],
        *,
        requests_max: int,
        routine: frozenset[str],
        log: Any,
    ) -> None:
        self._tracer = tracer
        self._serve = serve
        self._link_to = link_to
        self._requests_max = requests_max
        self._routine = routine
        self._log = log
        self._pending: dict[int, Pending] = {}
        self._serving: dict[asyncio.Task[None], None] = {}

    # ---- asking -----------------------------------------------------------------------

    async def request(self, link: PeerLink, method: str, body: bytes, *, timeout_s: float) -> bytes:
        """The peer's answer; raises PeerNotReached, PeerUnreachable or PeerError."""
        assert len(body) <= REQUEST_BYTES_MAX, "a request's body is bounded by its maker"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if not await link.wait_up(min(timeout_s, LINK_PATIENCE_S)):
            raise not_reached(link.peer, method, link.why_down or "no link")
        number = self._tracer.stamp_number()
        pending = Pending(link.peer, method, loop.create_future())
        self._pending[number] = pending
        try:
            timeout_ms = max(1, int((deadline - loop.time()) * 1000))
            quiet = method in self._routine and not link.trace.sampled()
            if not link.send_call(Request(number, method, timeout_ms, body, quiet)):
                raise not_reached(link.peer, method, "too many requests wait already")
            async with asyncio.timeout_at(deadline):
                return await pending.future
        except TimeoutError:
            if link.outbox.cancel_request(number):
                raise not_reached(link.peer, method, "the link took nothing") from None
            raise _unknown(link.peer, method, f"no answer within {timeout_s:g} s") from None
        finally:
            del self._pending[number]

    def answered(self, peer: str, answer: Answer | Failure) -> None:
        """An answer came in; late ones and those of strangers are ignored."""
        pending = self._pending.get(answer.id)
        if pending is None or pending.peer != peer or pending.future.done():
            return
        if isinstance(answer, Answer):
            pending.future.set_result(answer.body)
        else:
            pending.future.set_exception(_peer_error(peer, answer))

    def fail(self, peer: str, why: str) -> None:
        """The link to `peer` is lost: no answer can be trusted to come."""
        link = self._link_to(peer)
        for number, pending in self._pending.items():
            if pending.peer != peer or pending.future.done():
                continue
            if link is not None and link.outbox.cancel_request(number):
                pending.future.set_exception(not_reached(peer, pending.method, why))
            else:
                pending.future.set_exception(_unknown(peer, pending.method, why))

    # ---- answering --------------------------------------------------------------------

    def serve(self, peer: str, request: Request) -> None:
        """Start answering a peer's request, unless too many are in progress."""
        if len(self._serving) >= self._requests_max:
            self._answer(peer, self._failure(request, Overloaded("too many requests are in progress", hint="retry")))
            return
        task = asyncio.get_running_loop().create_task(self._serve_one(peer, request), name=f"serve {request.method}")
        self._serving[task] = None
        task.add_done_callback(self._serving.pop)

    async def close(self) -> None:
        """Stop serving; requests in progress are abandoned."""
        tasks = list(self._serving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve_one(self, peer: str, request: Request) -> None:
        answer: Answer | Failure
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                body = await self._serve(peer, request.method, request.body)
            if len(body) > REQUEST_BYTES_MAX:
                raise SkerryError(f"the answer to {request.method} has {len(body)} bytes, over {REQUEST_BYTES_MAX}")
            answer = Answer(self._number(request), request.id, body)
        except SkerryError as error:
            answer = self._failure(request, error)
        except TimeoutError:
            answer = self._failure(request, PeerUnreachable(f"{request.method} did not finish in time"))
        except Exception:
            self._log.exception("a request of a peer failed unexpectedly", peer=peer, method=request.method)
            answer = self._failure(request, SkerryError("internal error", hint="see the peer's log"))
        self._answer(peer, answer)

    def _answer(self, peer: str, answer: Answer | Failure) -> None:
        link = self._link_to(peer)
        if link is None or not link.send_call(answer):
            self._log.warning("an answer was dropped", peer=peer, request=answer.id)

    def _number(self, request: Request) -> int:
        """The message counter of its answer; 0 when that is not recorded."""
        return 0 if request.quiet else self._tracer.stamp_number()

    def _failure(self, request: Request, error: SkerryError) -> Failure:
        details = msgspec.json.encode(error.details, enc_hook=str)
        return Failure(
            self._number(request),
            request.id,
            (error.peer_code if isinstance(error, PeerError) else error.code)[:64],
            error.message[:4096],
            error.hint[:4096],
            error.peer_retryable if isinstance(error, PeerError) else error.retryable,
            error.peer_outcome if isinstance(error, PeerError) else error.outcome,
            details if len(details) <= 65_536 else b"{}",
        )


def not_reached(peer: str, method: str, why: str) -> PeerNotReached:
    """The error of a request that certainly never left."""
    return PeerNotReached(f"{method} was not sent to {peer}: {why}", hint="retry, or ask another replica", peer=peer)


def _unknown(peer: str, method: str, why: str) -> PeerUnreachable:
    return PeerUnreachable(
        f"{method} went to {peer} but its outcome is unknown: {why}",
        hint="ask again with the same request id",
        peer=peer,
    )


def _peer_error(peer: str, failure: Failure) -> PeerError:
    try:
        details = msgspec.json.decode(failure.details)
    except msgspec.DecodeError:
        details = {}
    return PeerError(
        failure.message,
        hint=failure.hint,
        code=failure.code,
        retryable=failure.retryable,
        outcome=failure.outcome,
        details={**(details if isinstance(details, dict) else {}), "peer": peer},
    )
