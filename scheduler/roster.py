"""What every replica says of itself, gathered from all of them.

Owns: the link call ``row`` and the verdict over the rows (healthy, how many losses it survives).
Must not know: HTTP, or how a row comes about inside a replica.

Works without a quorum: each replica is asked with a short deadline, and one that does not answer
is shown as ``unreachable``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from raft.errors import SkerryError
from raft.quorum import majority
from raft.status import LEARNER, Standing
from scheduler.proposals import Peers

ROW = "row"
UNREACHABLE = "unreachable"
LEADER = "leader"


class RowCall(Struct, frozen=True, array_like=True):
    """Describe yourself; the digest only when asked, it costs a pass over what changed of the state."""

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
    alert: str = ""
    """What people should know now, "" when nothing is wrong."""
    halves: tuple[tuple[str, ...], ...] = ()
    """The voters as this replica knows them; while the configuration is joint the new ones and the old ones."""
    standing: str = Standing.OK.value
    """What the comparison of the replicas' states says of this one's."""


class Verdict(Struct, frozen=True):
    """Whether writes can be committed now, how many more replicas may fail, and why in words."""

    healthy: bool
    survives: int
    leader: str | None
    term: int
    summary: str


_row_decoder = msgspec.msgpack.Decoder(Row)
_call_decoder = msgspec.msgpack.Decoder(RowCall)


class Roster:
    """Gathers the rows.

    Args:
        node: this replica's id.
        members: ids of all replicas, this one included.
        own: makes this replica's row, without the digest.
        digest: works out (index, digest) of its state; awaited only when asked for.
        peers: links to the others.
        linked: ids of the others to whom a link is up; who is not linked is not waited for.
    """

    def __init__(
        self,
        *,
        node: str,
        members: Callable[[], Sequence[str]],
        own: Callable[[], Row],
        digest: Callable[[], Awaitable[tuple[int, str]]],
        peers: Peers,
        linked: Callable[[], Sequence[str]],
    ) -> None:
        self._node = node
        self._members = members
        self._own = own
        self._digest = digest
        self._peers = peers
        self._linked = linked

    def own(self) -> Row:
        """This replica's own row, without its digest."""
        return self._own()

    async def serve(self, body: bytes) -> bytes:
        """Answer the call ``row``; raises msgspec.DecodeError or ValidationError."""
        return msgspec.msgpack.encode(await self._described(digest=_call_decoder.decode(body).digest))

    async def gather(self, *, timeout_s: float, digest: bool) -> list[Row]:
        """One row a member, sorted by id, within `timeout_s`."""
        body = msgspec.msgpack.encode(RowCall(digest))
        linked = self._linked()

        async def row(member: str) -> Row:
            if member == self._node:
                return await self._described(digest=digest)
            return await self._ask(member, body, timeout_s) if member in linked else Row(member, UNREACHABLE)

        return list(await asyncio.gather(*(row(member) for member in sorted(self._members()))))

    async def _described(self, *, digest: bool) -> Row:
        """This replica's row; with a digest, `applied_index` is the index that it is of."""
        if not digest:
            return self._own()
        index, text = await self._digest()
        return replace(self._own(), applied_index=index, digest=text)

    async def _ask(self, member: str, body: bytes, timeout_s: float) -> Row:
        try:
            async with asyncio.timeout(timeout_s):
                return _row_decoder.decode(await self._peers.request(member, ROW, body, timeout_s=timeout_s))
        except (SkerryError, TimeoutError, msgspec.DecodeError, msgspec.ValidationError):
            return Row(member, UNREACHABLE)


def verdict(rows: Sequence[Row]) -> Verdict:
    """What the rows mean together.

    Writes can be committed when the leader of the highest term that anyone reports says itself
    that it leads, and a majority of the voters answer and follow it (of the old and of the new voters each, while
    the configuration is joint).  `survives` is how many of those may fail until that is no longer so.
    """
    answering = [row for row in rows if row.role != UNREACHABLE]
    term = max((row.term for row in answering), default=0)
    leader = next((row for row in answering if row.role == LEADER and row.term == term), None)
    halves = _halves(rows, leader)
    following = [
        row.id for row in answering
        if leader is not None and row.leader == leader.id and row.term == term and row.role != LEARNER
    ]  # fmt: skip
    survives = min(sum(voter in following for voter in half) - majority(len(half)) for half in halves)
    if leader is None or survives < 0:
        why = _unhealthy(rows, halves, leader.id if leader else None, following)
        return Verdict(False, 0, leader.id if leader else None, term, why)
    if leader.standing == Standing.SPLIT:
        return Verdict(False, 0, leader.id, term, "the replicas' states differ, no majority agrees: writes are halted")
    summary = f"healthy; survives {survives} more {'loss' if survives == 1 else 'losses'}"
    if learners := [row.id for row in rows if row.role == LEARNER]:
        summary += f"; learning, without a vote: {', '.join(learners)}"
    if wrong := [row.id for row in rows if row.standing == Standing.DIVERGED]:
        summary += f"; fetching its state anew: {', '.join(wrong)}"
    if silent := _silent(rows):
        summary += f"; not reached: {', '.join(silent)}"
    return Verdict(True, survives, leader.id, term, summary)


def _halves(rows: Sequence[Row], leader: Row | None) -> tuple[tuple[str, ...], ...]:
    """The voters, as the leader has them, else as the row that knows most; all rows while nobody knows."""
    best = leader or max(rows, key=lambda row: (row.term, row.commit_index), default=None)
    return (best.halves if best else ()) or (tuple(row.id for row in rows),)


def _silent(rows: Sequence[Row]) -> list[str]:
    return [row.id for row in rows if row.role == UNREACHABLE]


def _unhealthy(
    rows: Sequence[Row], halves: tuple[tuple[str, ...], ...], leader: str | None, following: Sequence[str]
) -> str:
    voting = [row.id for row in rows if row.role not in (UNREACHABLE, LEARNER)]
    for half in halves:
        quorum, answer = majority(len(half)), sum(voter in voting for voter in half)
        if answer < quorum:
            why = f"no quorum: {answer} of {len(half)} {_voters(rows, half)} answer, {quorum} are needed"
            return f"{why}; not reached: {', '.join(_silent(rows))}" if _silent(rows) else why
    if leader is None:
        return "no leader: an election is under way"
    half = min(halves, key=lambda each: sum(voter in following for voter in each) - majority(len(each)))
    count = sum(voter in following for voter in half)
    return f"no quorum: {count} of {len(half)} {_voters(rows, half)} follow {leader}, {majority(len(half))} are needed"


def _voters(rows: Sequence[Row], half: Sequence[str]) -> str:
    return "replicas" if len(half) == len(rows) else "voters"
