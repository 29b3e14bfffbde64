"""Deliberate bugs of the replicated state: placing, reports, owners, applying (scheduler.state, cluster.ring)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from msgspec.structs import replace

from cluster.ring import Ring, position
from scheduler.commands import AllocationStatus, Command, Placement
from scheduler.state.allocations import IS_STOPPABLE, AttemptTable
from scheduler.state.books import Books
from scheduler.state.columns import Int64s
from scheduler.state.jobs import JobRecord
from scheduler.state.planning import Fault
from scheduler.state.results import Result
from scheduler.state.state import State

_apply = State._apply
_order_stop_rows = Books.order_stop_rows
_note_started = Books.note_started


def node_fault_unchecked(books: Books, job: JobRecord, placement: Placement) -> Fault | None:
    """`plan-not-rechecked`: what the decider saw is believed, however old it is."""
    known = placement.node in books.nodes.slot_of
    taken = known and any(books.nodes.slot_of[placement.node] in books.nodes.port_holders.get(p, ()) for p in job.ports)
    return None if known and not taken else ("no-such-node", "the node is not registered")


def owner_fault_unchecked(books: Books, placement: Placement, ring_epoch: int) -> Fault | None:
    """`stale-owner-accepted`: a plan for a node that is another replica's by now is taken."""
    return None


def capacity_freed_at_once(self: Books, rows: Int64s, index: int) -> None:
    """`capacity-freed-at-stop`: the order to stop gives the room back, while the workload still runs."""
    leaving = rows[IS_STOPPABLE[self.attempts.states(rows)]] if len(rows) else rows
    _order_stop_rows(self, rows, index)
    attempts = self.attempts
    for row in leaving.tolist():
        self.nodes._add(attempts.node[row], attempts.need(row), -1)
        attempts._cpu[row] = attempts._memory[row] = attempts._pids[row] = 0


def always_news(attempts: AttemptTable, row: int, status: AllocationStatus) -> bool:
    """`status-out-of-order`: a report counts whenever it comes."""
    return True


def apply_twice(self: State, index: int, command: Command) -> Result:
    """`apply-twice`: every entry takes effect twice."""
    first = _apply(self, index, command)
    second = _apply(self, index, command)
    return replace(second, changes=(*first.changes, *second.changes))


_counted: WeakKeyDictionary[Books, int] = WeakKeyDictionary()


def note_every_other_start(self: Books, row: int, time_ms: int) -> None:
    """`nondeterministic-apply`: a counter decides that is in no snapshot, so who restores one decides otherwise."""
    number = _counted[self] = _counted.get(self, 0) + 1
    _note_started(self, row, time_ms if number % 2 else time_ms + 1)


def owner_by_remainder(self: Ring, key: str) -> str | None:
    """`ring-moves-foreign-keys`: the hash modulo the number of owners, so nearly all keys move with each change."""
    return self.owners[position(key) % len(self.owners)] if self.owners else None
