"""Renewals of nodes' leases, from the replica that holds a session to the leader and back.

Owns: the link call ``renew``, and which renewals share a round.  Must not know: what a lease is worth
(`scheduler.lease_keeper`), or agents.

A renewal is never repeated for its sender: one that got no answer is followed by the agent's next.
Many go in one call, but never in one that left before they arrived, since a confirmation has to come
from a round that the leader began after it got the renewal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from raft.errors import NotLeader, Overloaded, SkerryError
from scheduler.proposals import BadCall, Peers

RENEW = "renew"
ROUND_S = 1.5
"""How long one round may take."""
ROUND_GAP_S = 0.02
"""While one hangs, the next begins after this long."""
ROUNDS_MAX = 32
WAITING_MAX = 16_384
CALL_RENEWALS_MAX = 4_096

GRANTED = ""
WITHHELD = "withheld"
"""Not now: the node's loss is being decided, or the leader does not know it yet."""
HELLO_AGAIN = frozenset({"no-such-node", "stale-incarnation", "node-lost"})
"""The node has to register (anew) before it gets a lease."""


class Renewal(Struct, frozen=True, array_like=True):
    """A node asks for its lease to be prolonged."""

    node: str
    incarnation: str
    number: int


class RenewCall(Struct, frozen=True, array_like=True):
    """Confirm these by a round begun after this call, within `timeout_ms`."""

    renewals: tuple[Renewal, ...]
    timeout_ms: int


class Grant(Struct, frozen=True, array_like=True):
    """What became of one renewal; `code` is one of the words above, and 0 ms unless it was granted."""

    code: str
    lease_ms: int
    registration: int


class RenewReply(Struct, frozen=True, array_like=True):
    """Answers in the order of the call, and the index that the round confirmed."""

    index: int
    grants: tuple[Grant, ...]


class Leader(Protocol):
    """What is needed of the leader's part, when this replica leads."""

    async def renew(self, call: RenewCall) -> RenewReply:
        """Note, confirm, answer; raises SkerryError."""
        ...


_call_decoder = msgspec.msgpack.Decoder(RenewCall)
_reply_decoder = msgspec.msgpack.Decoder(RenewReply)


class Renewals:
    """The renewals that arrive at this replica.

    Args:
        node: this replica's id.
        leader: the leader as far as known.
        peers: links to the others.
        keeper: serves the calls when this replica leads.
    """

    def __init__(self, *, node: str, leader: Callable[[], str | None], peers: Peers, keeper: Leader) -> None:
        self._node = node
        self._leader = leader
        self._peers = peers
        self._keeper = keeper
        self._waiting: list[tuple[Renewal, asyncio.Future[tuple[int, Grant]]]] = []
        self._asked = asyncio.Event()
        self._rounds: set[asyncio.Task[None]] = set()

    async def renew(self, renewal: Renewal) -> tuple[int, Grant]:
        """(confirmed index, grant) of one renewal.

        Raises:
            SkerryError: nobody could confirm it; its sender tries again with its next.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded("too many renewals wait for a quorum round", hint="dial another replica")
        future: asyncio.Future[tuple[int, Grant]] = asyncio.get_running_loop().create_future()
        self._waiting.append((renewal, future))
        self._asked.set()
        return await future

    async def serve(self, body: bytes) -> bytes:
        """Answer the call ``renew`` of another replica."""
        try:
            call = _call_decoder.decode(body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise BadCall(f"renewals cannot be read: {error}") from None
        return msgspec.msgpack.encode(await self._keeper.renew(call))

    async def run(self) -> None:
        """Start rounds for what waits, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._asked.wait()
                taken = self._waiting[:CALL_RENEWALS_MAX]
                self._waiting = self._waiting[CALL_RENEWALS_MAX:]
                if not self._waiting:
                    self._asked.clear()
                task = group.create_task(self._round(taken), name="renewals")
                self._rounds.add(task)
                task.add_done_callback(self._rounds.discard)
                await asyncio.wait({task}, timeout=ROUND_GAP_S)
                if len(self._rounds) >= ROUNDS_MAX:
                    await asyncio.wait(self._rounds, return_when=asyncio.FIRST_COMPLETED)

    async def _round(self, taken: list[tuple[Renewal, asyncio.Future[tuple[int, Grant]]]]) -> None:
        call = RenewCall(tuple(renewal for renewal, _ in taken), int(ROUND_S * 1000))
        try:
            reply = await self._confirm(call)
            if len(reply.grants) != len(taken):
                raise BadCall("the leader answered another number of renewals than it was asked")
        except SkerryError as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), grant in zip(taken, reply.grants, strict=True):
            if not future.done():
                future.set_result((reply.index, grant))

    async def _confirm(self, call: RenewCall) -> RenewReply:
        leader = self._leader()
        if leader is None:
            raise NotLeader("no leader is known", hint="dial another replica", leader=None)
        if leader == self._node:
            return await self._keeper.renew(call)
        answer = await self._peers.request(leader, RENEW, msgspec.msgpack.encode(call), timeout_s=ROUND_S)
        try:
            return _reply_decoder.decode(answer)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise BadCall(f"{leader} answered renewals with garbage: {error}") from None
