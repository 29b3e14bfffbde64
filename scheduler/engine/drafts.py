"""Draft a plan: decide what waits, against one reading of the state.

Owns: how pending work and placement meet, and what is left over.
Must not know: the log, sessions, or how a plan is proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from scheduler import evaluations
from scheduler.commands import Placement
from scheduler.engine.decision import Table
from scheduler.engine.filters import FILTERS, FITS, Verdicts
from scheduler.engine.world import PlacementRequest

if TYPE_CHECKING:
    from scheduler.state.jobs import JobRecord
    from scheduler.state.state import State

DRAFT_PLACEMENTS_MAX: Final = 256


class Draft(Struct, frozen=True):
    """What to propose, and which jobs had allocations that fit nowhere.

    `blocked`: job id → why, such as ``0 of 4 nodes fit: 3 memory, 1 node-ready``.
    `more`: ready work was left because of the limit, so draft again.
    `ring_epoch`: of the owners it was drafted under.
    """

    placements: tuple[Placement, ...]
    blocked: dict[str, str]
    more: bool
    ring_epoch: int = 0


def draft(
    state: State,
    now_ms: int,
    *,
    limit: int = DRAFT_PLACEMENTS_MAX,
    absent: Sequence[str] = (),
    in_flight: Sequence[Placement] = (),
    skip: Collection[tuple[str, int]] = (),
    owner: str = "",
    takes: Callable[[str], bool] | None = None,
) -> Draft:
    """Decide for allocations that may be placed now.

    Args:
        state: the applied state.
        now_ms: Unix milliseconds, for back-off alone.
        limit: most placements in the draft.
        absent: nodes without a live session, which get nothing.
        in_flight: placements proposed but not yet applied; they are booked first, and their
            allocations are not placed again.
        skip: (allocation, attempt) pairs to leave alone, refused too often to try again now.
        owner: the replica that decides, whose nodes are looked at first; "" = all nodes alike.
        takes: whether a job is this decider's to place; None = every job is.
    """
    jobs = [job for job in evaluations.waiting_jobs(state, now_ms) if takes is None or takes(job.id)]
    if not jobs:
        return Draft((), {}, more=False)
    table = Table(state.world(absent, owner))
    drafting = _Drafting(state, table, _book_in_flight(state, table, in_flight), skip)
    more = False
    for _, equals in groupby(jobs, key=lambda job: job.spec.priority):
        more = drafting.serve(list(equals), limit) or more
    return Draft(tuple(drafting.made), drafting.blocked, more, state.books.shards.epoch)


class _Drafting:
    """One draft in the making."""

    def __init__(self, state: State, table: Table, flying: dict[str, None], skip: Collection[tuple[str, int]]) -> None:
        self.state = state
        self.table = table
        self.flying = flying
        self.skip = skip
        self.made: list[Placement] = []
        self.blocked: dict[str, str] = {}

    def serve(self, jobs: Sequence[JobRecord], limit: int) -> bool:
        """Place ready allocations of jobs of one priority in turns; whether some were left for want of room."""
        queues = [(job, job.waiting.ready()) for job in jobs]
        while queues and len(self.made) < limit:
            again = []
            for job, ready in queues:
                room = min(evaluations.FAIR_SHARE, limit - len(self.made))
                if self.take(job, ready, room):
                    again.append((job, ready))
            queues = again
        return bool(queues)

    def take(self, job: JobRecord, ready: Iterator[int], room: int) -> bool:
        """Place up to `room` of a job's ready allocations; whether more of them may be ready."""
        if room <= 0:
            return True
        for ordinal in ready:
            allocation = job.allocation(ordinal)
            attempt = evaluations.next_attempt(self.state, job, ordinal)
            if allocation in self.flying or (allocation, attempt) in self.skip:
                continue
            if not self._place(job, request_for(job, ordinal), attempt):
                return False
            room -= 1
            if room == 0:
                return True
        return False

    def _place(self, job: JobRecord, request: PlacementRequest, attempt: int) -> bool:
        decision = self.table.place(job.id, request)
        if decision.slot is None or decision.node is None:
            self.blocked[job.id] = blocked_because(self.table.verdicts(request))
            return False
        self.table.book(job.id, request, decision.slot)
        generation = int(self.table.world.generation[decision.slot])
        self.made.append(Placement(request.allocation, attempt, job.version, decision.node, generation))
        return True


def request_for(job: JobRecord, ordinal: int) -> PlacementRequest:
    """The placement request of one allocation of a job."""
    spec = job.spec
    return PlacementRequest(
        job.allocation(ordinal),
        job.need,
        job.ports,
        job.per_node,
        spec.node_selector,
        spec.tolerations,
        spec.rules,
        job.newcomer,
    )


def blocked_because(verdicts: Verdicts) -> str:
    """Nodes by first failing filter, in words."""
    counts = [(int((verdicts == code).sum()), name) for code, name in enumerate(FILTERS)]
    listed = ", ".join(f"{count} {name}" for count, name in counts if count)
    fitting = int((verdicts == FITS).sum())
    return f"{fitting} of {len(verdicts)} nodes fit" + (f": {listed}" if listed else "")


def _book_in_flight(state: State, table: Table, in_flight: Sequence[Placement]) -> dict[str, None]:
    flying: dict[str, None] = {}
    slots = state.books.nodes.slot_of
    for placement in in_flight:
        job, ordinal = state.books.locate(placement.allocation)
        if job is None or ordinal not in job.waiting:
            continue
        flying[placement.allocation] = None
        table.book(job.id, request_for(job, ordinal), slots[placement.node])
    return flying
