"""What the handlers of the API work with.

Owns: the read barrier's policy and what several nouns share.
Must not know: any noun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from scheduler.changelog import Changelog
from scheduler.held_session import Door
from scheduler.output import OutputReader
from scheduler.roster import Roster, Row
from scheduler.session_wire import Trace
from scheduler.state import State

READ_S = 3.0
WRITE_S = 6.0
ROWS_S = 0.4
"""How long other replicas are waited for when they are asked about themselves."""


class ReadQuery(Struct, frozen=True):
    """What every read may ask for."""

    stale: bool = False
    """Answer from what this replica has applied, without asking a quorum."""


class Leader(Protocol):
    """Names the leader."""

    def __call__(self) -> str | None:
        """The leader as far as known."""
        ...


class Services:
    """One replica, as its API sees it.

    Args:
        node: this replica's id.
        state: replicated state, read-only here.
        door: proposals and barriers.
        wall_ms: Unix milliseconds.
        usable: raises StateDiverged while the state here is not to be used.
    """

    def __init__(
        self,
        *,
        node: str,
        state: State,
        door: Door,
        roster: Roster,
        output: OutputReader,
        changelog: Changelog,
        trace: Trace,
        leader: Leader,
        wall_ms: Callable[[], int],
        usable: Callable[[], None],
    ) -> None:
        self.node = node
        self.usable = usable
        self.state = state
        self.door = door
        self.roster = roster
        self.output = output
        self.changelog = changelog
        self.trace = trace
        self.leader = leader
        self.wall_ms = wall_ms

    async def fresh(self, query: ReadQuery) -> None:
        """Take a read barrier, unless the caller asked for stale data.

        Raises:
            NoQuorum, NotLeader: nobody could confirm in time.
        """
        if not query.stale:
            await self.door.barrier(timeout_s=READ_S)

    async def rows(self, *, digest: bool = False) -> list[Row]:
        """What the replicas say of themselves, shortly."""
        return await self.roster.gather(timeout_s=ROWS_S, digest=digest)


def holders(rows: list[Row]) -> dict[str, tuple[str, tuple[int, int]]]:
    """Node to (replica that holds its session, usage)."""
    return {node: (row.id, usage) for row in rows for node, usage in row.sessions.items()}


def missing(state: State, held: Mapping[str, object]) -> list[str]:
    """Registered nodes whose session nobody holds, sorted."""
    return [node for node in sorted(state.books.nodes.slot_of) if node not in held]
