"""Applying what nodes say: ReportStatus and StopUnknown.

Owns: which report is news, which is stale, and which names something unknown.
Must not know: sessions or agents.
"""

from __future__ import annotations

from msgspec.structs import replace

from scheduler.commands import AllocationStatus, ReportStatus, StopUnknown
from scheduler.model import AllocationState, Exit, ExitReason
from scheduler.state.allocations import NONE, AttemptTable
from scheduler.state.books import Books
from scheduler.state.results import Change, StatusResult, StopsResult

RUNNING = "running"
EXITED = "exited"
CGROUP_MAX = 1024
DETAIL_MAX = 1024
"""Characters of a node's words that are kept."""

_UNTOLD = Exit(code=None, signal=None, reason=ExitReason.LOST, status_known=False, detail="the node did not say how")


def report(books: Books, index: int, command: ReportStatus) -> StatusResult:
    """Apply a node's reports in their order.

    A report counts only from the node's registered incarnation, and only with a higher
    sequence than the last one about that attempt.
    """
    entry = books.nodes.entry(command.node)
    if entry is None:
        return StatusResult(
            index=index, code="no-such-node", message=f"{command.node} is not registered", hint="register it first"
        )
    if entry.incarnation != command.incarnation:
        return StatusResult(
            index=index,
            code="stale-incarnation",
            message=f"{command.node} is registered with incarnation {entry.incarnation}, not {command.incarnation}",
            hint="say hello again",
        )
    if entry.lost_index:
        return StatusResult(
            index=index,
            code="node-lost",
            message=f"{command.node} was declared lost at index {entry.lost_index}",
            hint="say hello again",
        )
    slot = books.nodes.slot_of[command.node]
    applied = stale = 0
    unknown: list[tuple[str, int]] = []
    changes: list[Change] = []
    taken: list[tuple[str, int, int, str]] = []
    for status in command.reports:
        row = _row_on(books, slot, status)
        if row == NONE:
            _unknown(books, slot, status, unknown, index)
        elif not books.is_live(row):
            stale += 1
            _contradiction(books, slot, status, unknown, index)
        elif not is_news(books.attempts, row, status):
            stale += 1
        else:
            applied += 1
            taken.append((status.allocation, status.epoch, status.sequence, status.state))
            _apply(books, row, status, index, command.time_ms, changes)
    return StatusResult(
        index=index,
        node=command.node,
        applied=applied,
        stale=stale,
        unknown=tuple(unknown),
        taken=tuple(taken),
        changes=tuple(changes),
    )


def is_news(attempts: AttemptTable, row: int, status: AllocationStatus) -> bool:
    """Whether a report is newer than the last one that counted: they are repeated, and may overtake each other."""
    return status.sequence > attempts.sequence[row]


def stop_unknown(books: Books, index: int, command: StopUnknown) -> StopsResult:
    """Write stop records for what runs on a node and is not wanted there.

    An attempt that is placed on that node and wanted is left alone: it is in the node's
    assignments, which is the answer to the agent.
    """
    slot = books.nodes.slot_of.get(command.node)
    if slot is None:
        return StopsResult(
            index=index, code="no-such-node", message=f"{command.node} is not registered", hint="register it first"
        )
    written: list[tuple[str, int]] = []
    strangers: list[tuple[str, int]] = []
    for allocation, epoch in command.allocations:
        row = books.find(allocation, epoch)
        if books.is_live(row) and books.attempts.node[row] == slot:
            if books.attempts.standing(row) is AllocationState.STOPPING:
                written.append((allocation, epoch))
            continue
        strangers.append((allocation, epoch))
        written.append((allocation, epoch))
    if strangers:
        books.nodes.stops.add(slot, strangers, index)
    if written:
        books.nodes.touch(slot, index)
    return StopsResult(index=index, stops=tuple(written))


def _row_on(books: Books, slot: int, status: AllocationStatus) -> int:
    row = books.find(status.allocation, status.epoch)
    return row if row != NONE and books.attempts.node[row] == slot else NONE


def _unknown(books: Books, slot: int, status: AllocationStatus, unknown: list[tuple[str, int]], index: int) -> None:
    """Only what still runs needs a stop; an exit confirms the stop record, if there was one."""
    key = (status.allocation, status.epoch)
    if status.state == EXITED:
        if books.nodes.stops.drop(slot, key):
            books.nodes.touch(slot, index)
    elif key not in books.nodes.stops.of(slot):
        unknown.append(key)


def _contradiction(
    books: Books, slot: int, status: AllocationStatus, unknown: list[tuple[str, int]], index: int
) -> None:
    """An attempt that is over here but said to run there is unknown, unless the report is an old one."""
    row = books.find(status.allocation, status.epoch)
    if status.state == EXITED or status.sequence > books.attempts.sequence[row]:
        _unknown(books, slot, status, unknown, index)


def _apply(books: Books, row: int, status: AllocationStatus, index: int, time_ms: int, changes: list[Change]) -> None:
    attempts = books.attempts
    attempts.sequence[row] = status.sequence
    if status.pid > 0:
        attempts.pid[row] = status.pid
    if status.cgroup:
        attempts.cgroups[row] = status.cgroup[:CGROUP_MAX]
    if status.state == EXITED:
        changes.append(books.end(row, _kept(status.exit), index=index, time_ms=time_ms))
        return
    books.note_started(row, time_ms)


def _kept(end: Exit | None) -> Exit:
    """The exit with its free text bounded; without one, lost: never an invented success."""
    return _UNTOLD if end is None else replace(end, reason=end.reason[:64], detail=end.detail[:DETAIL_MAX])
