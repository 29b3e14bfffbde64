"""Getting a command committed, and a read confirmed, from any replica.

Owns: finding the leader, forwarding to it over the replica links, asking again while a
leader is elected, and honest outcomes.  Must not know: HTTP, sessions, or what a command does.

Every command is idempotent at apply (by request id, attempt or sequence), so an attempt whose
fate is unknown may be repeated through the next leader; only when the deadline passes does the
caller learn ``outcome: unknown``.  While no attempt can have had an effect it is ``not-done``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from cluster.errors import PeerError
from raft.errors import NotLeader, OutcomeUnknown, Overloaded, SkerryError
from scheduler import forwarding
from scheduler.barriers import Barriers
from scheduler.commands import Command, encode
from scheduler.forwarding import Answer, ProposeCall, ReadIndexCall, RemoteError, told

WAITING_MAX = 4096
"""Proposals, own and forwarded, that may wait here at once."""
PAUSE_S = 0.025
"""Between two tries while nothing announces another leader."""
TIMEOUT_S_MAX = 60.0
"""Longest that a forwarded call may wait here."""

#: Codes after which another try, perhaps at another replica, is right.
TRY_AGAIN = frozenset({"not-leader", "no-quorum", "proposal-dropped", "peer-unreachable", "state-diverged"})

T = TypeVar("T")


class Applied(Struct, frozen=True):
    """A committed and applied command: where, and what the state answered."""

    index: int
    term: int
    result: Any


class Committed(Protocol):
    """Where a proposal was committed, and what apply answered."""

    @property
    def index(self) -> int:
        """Log index."""
        ...

    @property
    def term(self) -> int:
        """Term of the entry."""
        ...

    @property
    def result(self) -> Any:
        """What apply answered."""
        ...


class Consensus(Protocol):
    """What is needed of this replica's driver."""

    @property
    def leader(self) -> str | None:
        """The leader, as far as this replica knows."""
        ...

    async def propose(self, data: bytes, *, timeout_s: float) -> Committed:
        """Commit and apply `data`, when this replica leads."""
        ...

    async def read_index(self, *, timeout_s: float) -> int:
        """An index confirmed by a quorum round and applied here, when this replica leads."""
        ...

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Return once `index` is applied here."""
        ...


class Peers(Protocol):
    """What is needed of the links."""

    async def request(self, to: str, method: str, body: bytes, *, timeout_s: float) -> bytes:
        """Ask replica `to`; raises SkerryError with an honest outcome."""
        ...


class Proposals:
    """The door to the log from this replica.

    Args:
        node: this replica's id.
        consensus: its driver.
        peers: links to the other replicas.
        encode_result, decode_result: a result of apply as bytes, and back.
    """

    def __init__(
        self,
        *,
        node: str,
        consensus: Consensus,
        peers: Peers,
        encode_result: Callable[[Any], bytes],
        decode_result: Callable[[bytes], Any],
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._node = node
        self._consensus = consensus
        self._peers = peers
        self._encode_result = encode_result
        self._decode_result = decode_result
        self._waiting = 0
        self._waiting_max = waiting_max
        self._changed = asyncio.Event()
        self._barriers = Barriers(self._confirm)

    @property
    def waiting(self) -> int:
        """Proposals waiting here now."""
        return self._waiting

    def leader_changed(self) -> None:
        """To be called whenever role, term or known leader changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serve the read barriers until cancelled."""
        await self._barriers.run()

    async def propose(self, command: Command, *, timeout_s: float) -> Applied:
        """Commit and apply `command`, wherever the leader is.

        Raises:
            NotLeader, NoQuorum, ProposalDropped: no leader took it in time; not done.
            OutcomeUnknown: the deadline passed while its fate was open.
            SkerryError: the leader refused (overloaded, log-full, disk-full); not done.
        """
        data = encode(command)

        async def attempt(leader: str, left_s: float) -> Applied:
            if leader == self._node:
                done = await self._consensus.propose(data, timeout_s=left_s)
                return Applied(done.index, done.term, done.result)
            body = forwarding.encode_call(ProposeCall(data, int(left_s * 1000)))
            answer = await self._ask(leader, forwarding.PROPOSE, body, left_s)
            return Applied(answer.index, answer.term, self._decode_result(answer.result))

        with self._slot():
            return await self._through_leader(attempt, timeout_s)

    async def barrier(self, *, timeout_s: float) -> int:
        """A linearizable read point: an index confirmed after this call, and applied here.

        Raises:
            NoQuorum, NotLeader: nobody could confirm in time.
        """
        return await self._barriers.wait(timeout_s=timeout_s)

    async def serve(self, method: str, body: bytes) -> bytes:
        """Answer a forwarded ``propose`` or ``read-index``; it is never forwarded again."""
        try:
            answer = await (self._serve_propose(body) if method == forwarding.PROPOSE else self._serve_read(body))
        except SkerryError as error:
            answer = forwarding.refusal(error)
        return forwarding.encode_answer(answer)

    # --- inside -------------------------------------------------------------------------------

    async def _serve_propose(self, body: bytes) -> Answer:
        call = _decoded(forwarding.decode_propose, body)
        with self._slot():
            applied = await self._consensus.propose(call.data, timeout_s=_seconds(call.timeout_ms))
        return Answer(applied.index, applied.term, self._encode_result(applied.result), None)

    async def _serve_read(self, body: bytes) -> Answer:
        call = _decoded(forwarding.decode_read_index, body)
        return Answer(await self._consensus.read_index(timeout_s=_seconds(call.timeout_ms)), 0, b"", None)

    async def _confirm(self, timeout_s: float) -> int:
        """One quorum round, wherever the leader is."""

        async def attempt(leader: str, left_s: float) -> int:
            if leader == self._node:
                return await self._consensus.read_index(timeout_s=left_s)
            body = forwarding.encode_call(ReadIndexCall(int(left_s * 1000)))
            answer = await self._ask(leader, forwarding.READ_INDEX, body, left_s)
            await self._consensus.wait_applied(answer.index, timeout_s=left_s)
            return answer.index

        return await self._through_leader(attempt, timeout_s, writes=False)

    async def _ask(self, leader: str, method: str, body: bytes, timeout_s: float) -> Answer:
        try:
            raw = await self._peers.request(leader, method, body, timeout_s=timeout_s)
        except PeerError as error:
            raise RemoteError(told(error)) from None
        try:
            return forwarding.decode_answer(raw)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise OutcomeUnknown(f"{leader} answered {method} with garbage: {error}", leader=leader) from None

    async def _through_leader(
        self, attempt: Callable[[str, float], Awaitable[T]], timeout_s: float, *, writes: bool = True
    ) -> T:
        """Try ``attempt(leader, seconds left)`` until it decides or the time is up."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        last: SkerryError | None = None
        unknown = False
        while (left_s := deadline - clock()) > 0:
            changed = self._changed
            leader = self._consensus.leader
            if leader is not None:
                try:
                    return await self._while_led(attempt(leader, left_s), leader)
                except SkerryError as error:
                    unknown = unknown or (writes and error.outcome == "unknown")
                    last = error
                    if error.outcome != "unknown" and error.code not in TRY_AGAIN:
                        break
            pause_s = left_s if leader is None else min(PAUSE_S, left_s)
            await _wait(changed, min(pause_s, max(0.0, deadline - clock())))
        if unknown:
            raise OutcomeUnknown(
                f"not known within {timeout_s:g} s whether it took effect" + (f": {last.message}" if last else ""),
                hint="ask again with the same request id",
                leader=self._consensus.leader,
            ) from last
        raise last or NotLeader(
            f"no leader was elected within {timeout_s:g} s",
            hint="a majority of the replicas must run and reach each other; see `skerry status`",
            leader=None,
        )

    async def _while_led(self, attempt: Awaitable[T], leader: str) -> T:
        """Await `attempt`, but give it up (outcome unknown) once another leader is known."""
        task = asyncio.ensure_future(attempt)
        try:
            while not task.done():
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                now = self._consensus.leader
                if not task.done() and now is not None and now != leader:
                    raise OutcomeUnknown(f"{leader} was replaced by {now} meanwhile", leader=now)
            return task.result()
        finally:
            task.cancel()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._waiting >= self._waiting_max:
            raise Overloaded(
                f"{self._waiting} proposals wait at replica {self._node} already", hint="slow down and ask again"
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


class BadCall(SkerryError):
    """Another replica sent a call that cannot be read."""

    code = "bad-call"


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadCall(f"a forwarded call cannot be read: {error}") from None


def _seconds(timeout_ms: int) -> float:
    return min(max(timeout_ms, 0) / 1000, TIMEOUT_S_MAX)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
