"""What every replica says of itself, gathered from all of them.

Owns: the link call ``row`` and the verdict over the rows (healthy, how many losses it survives).
Must not know: HTTP, or how a row comes about inside a replica.

Works without a quorum: each replica is asked with a short deadline, and one that does not answer
is shown as ``unreachable``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from raft.errors import SkerryError
from scheduler.proposals import Peers

ROW = "row"
UNREACHABLE = "unreachable"
LEADER = "leader"


class RowCall(Struct, frozen=True, array_like=True):
    """Describe yourself; the digest only when asked, it costs a pass over the state."""

    digest: bool


class Row(Struct, frozen=True, array_like=True):
    """One replica as it sees itself.

    `sessions` are the nodes whose session it holds, each with what its workloads used when its
    agent last said so: (CPU nanoseconds since the agent began to count, memory bytes).
    """

    id: str
    role: str
    term: int = 0
    leader: str | None = None
    commit_index: int = 0
    applied_index: int = 0
    digest: str = ""
    sessions: dict[str, tuple[int, int]] = {}


class Verdict(Struct, frozen=True):
    """Whether writes can be committed now, how many more replicas may fail, and why in words."""

    healthy: bool
    survives: int
    leader: str | None
    term: int
    summary: str


class Own(Protocol):
    """Makes this replica's own row."""

    def __call__(self, *, digest: bool) -> Row:
        """The row of this moment."""
        ...


_row_decoder = msgspec.msgpack.Decoder(Row)
_call_decoder = msgspec.msgpack.Decoder(RowCall)


class Roster:
    """Gathers the rows.

    Args:
        node: this replica's id.
        members: ids of all replicas, this one included.
        own: makes this replica's row.
        peers: links to the others.
        linked: ids of the others to whom a link is up; who is not linked is not waited for.
    """

    def __init__(
        self,
        *,
        node: str,
        members: Callable[[], Sequence[str]],
        own: Own,
        peers: Peers,
        linked: Callable[[], Sequence[str]],
    ) -> None:
        self._node = node
        self._members = members
        self._own = own
        self._peers = peers
        self._linked = linked

    def own(self) -> Row:
        """This replica's own row, without its digest."""
        return self._own(digest=False)

    def serve(self, body: bytes) -> bytes:
        """Answer the call ``row``; raises msgspec.DecodeError or ValidationError."""
        return msgspec.msgpack.encode(self._own(digest=_call_decoder.decode(body).digest))

    async def gather(self, *, timeout_s: float, digest: bool) -> list[Row]:
        """One row a member, sorted by id, within `timeout_s`."""
        body = msgspec.msgpack.encode(RowCall(digest))
        linked = self._linked()

        async def row(member: str) -> Row:
            if member == self._node:
                return self._own(digest=digest)
            return await self._ask(member, body, timeout_s) if member in linked else Row(member, UNREACHABLE)

        return list(await asyncio.gather(*(row(member) for member in sorted(self._members()))))

    async def _ask(self, member: str, body: bytes, timeout_s: float) -> Row:
        try:
            async with asyncio.timeout(timeout_s):
                return _row_decoder.decode(await self._peers.request(member, ROW, body, timeout_s=timeout_s))
        except (SkerryError, TimeoutError, msgspec.DecodeError, msgspec.ValidationError):
            return Row(member, UNREACHABLE)


def verdict(rows: Sequence[Row]) -> Verdict:
    """What the rows mean together.

    Writes can be committed when the leader of the highest term that anyone reports says itself
    that it leads, and a majority of all members answer and follow it.  `survives` is how many
    of those may fail until that is no longer so.
    """
    answering = [row for row in rows if row.role != UNREACHABLE]
    silent = [row.id for row in rows if row.role == UNREACHABLE]
    term = max((row.term for row in answering), default=0)
    leader = next((row.id for row in answering if row.role == LEADER and row.term == term), None)
    quorum = len(rows) // 2 + 1
    following = sum(1 for row in answering if leader is not None and row.leader == leader and row.term == term)
    if leader is None or following < quorum:
        return Verdict(False, 0, leader, term, _unhealthy(rows, silent, leader, following, quorum))
    survives = following - quorum
    summary = f"healthy; survives {survives} more {'loss' if survives == 1 else 'losses'}"
    if silent:
        summary += f"; not reached: {', '.join(silent)}"
    return Verdict(True, survives, leader, term, summary)


def _unhealthy(rows: Sequence[Row], silent: Sequence[str], leader: str | None, following: int, quorum: int) -> str:
    if len(rows) - len(silent) < quorum:
        return (
            f"no quorum: {len(rows) - len(silent)} of {len(rows)} replicas answer, {quorum} are needed; "
            f"not reached: {', '.join(silent)}"
        )
    if leader is None:
        return "no leader: an election is under way"
    return f"no quorum: {following} of {len(rows)} replicas follow {leader}, {quorum} are needed"
