"""The attempts: one row each, chained from newest to oldest per allocation.

Owns: the attempts' columns and their exits.  Must not know: jobs' wishes or nodes' capacity.
Only the newest `HISTORY_KEPT` ended attempts behind the current one are kept.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.lifecycle import HOLDING, LIVE, TRANSITIONS, Happening
from scheduler.model import AllocationState, Capacity, Exit
from scheduler.state.columns import Int64s, Table
from scheduler.state.paged import Objects, Section

HISTORY_KEPT: Final = 4
STATES: Final = tuple(AllocationState)
STATE_CODE: Final = {state: code for code, state in enumerate(STATES)}
LIVE_CODES: Final = tuple(STATE_CODE[state] for state in LIVE)
UNKNOWN_CODE: Final = STATE_CODE[AllocationState.UNKNOWN]
NONE: Final = -1


def _flags(*states: AllocationState) -> NDArray[np.bool_]:
    """For `flags[codes]`: which codes stand for one of `states`."""
    flags = np.zeros(len(STATES), dtype=np.bool_)
    flags[[STATE_CODE[state] for state in states]] = True
    return flags


IS_LIVE: Final = _flags(*LIVE)
IS_HOLDING: Final = _flags(*HOLDING)
IS_STOPPABLE: Final = _flags(
    *(
        state
        for state in LIVE
        if TRANSITIONS[state, Happening.STOP_ORDERED] is AllocationState.STOPPING
        and state is not AllocationState.STOPPING
    )
)

_COLUMNS: Final = (
    "job", "ordinal", "attempt", "epoch", "node", "state", "version", "cpu", "memory", "pids",
    "pid", "sequence", "placed_ms", "started_ms", "ended_ms", "streak", "failures", "stop_index", "previous",
    "fence", "lost_index",
)  # fmt: skip


class AttemptTable:
    """All attempts that are kept.  Each column is an attribute, `previous` holds row + 1."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table(_COLUMNS)
        c = self.table.columns
        self.job, self.ordinal, self.attempt, self.epoch = c["job"], c["ordinal"], c["attempt"], c["epoch"]
        self.node, self.version, self._state = c["node"], c["version"], c["state"]
        self.pid, self.sequence = c["pid"], c["sequence"]
        self.placed_ms, self.started_ms, self.ended_ms = c["placed_ms"], c["started_ms"], c["ended_ms"]
        self.streak, self.failures, self.stop_index = c["streak"], c["failures"], c["stop_index"]
        """`stop_index`: index of the committed decision that stopped the attempt, 0 = none did."""
        self._cpu, self._memory, self._pids, self._previous = c["cpu"], c["memory"], c["pids"], c["previous"]
        self.fence, self.lost_index = c["fence"], c["lost_index"]
        """`fence`: 0 = it outlives its node's lease, else 1 + the seconds of grace that its end may take.
        `lost_index`: index at which its node was declared lost, 0 = it is not, or has come back."""
        self.ports: Objects[tuple[int, ...]] = Objects(tuple[int, ...])
        self.cgroups: Objects[str] = Objects(str)
        self.exits: Objects[Exit] = Objects(Exit)

    def add(self, *, job: int, ordinal: int, attempt: int, epoch: int, node: int, version: int, need: Capacity,
            ports: tuple[int, ...], placed_ms: int, previous: int, fence: int = 0) -> int:  # fmt: skip
        """A row for a new attempt in state placed; `previous` is the row before it or NONE."""
        row = self.table.new_row()
        self.job[row], self.ordinal[row], self.attempt[row], self.epoch[row] = job, ordinal, attempt, epoch
        self.node[row], self.version[row], self.placed_ms[row] = node, version, placed_ms
        self._cpu[row], self._memory[row], self._pids[row] = need.cpu_millicores, need.memory_bytes, need.pids
        self.sequence[row] = NONE
        self._state[row] = STATE_CODE[AllocationState.PLACED]
        self._previous[row] = previous + 1
        self.fence[row] = fence
        if ports:
            self.ports[row] = ports
        self._trim(row)
        return row

    def state(self, row: int) -> AllocationState:
        """State of the attempt."""
        return STATES[self._state[row]]

    def set_state(self, row: int, state: AllocationState) -> None:
        """Enter a state that `scheduler.lifecycle` allows."""
        self._state[row] = STATE_CODE[state]

    def standing(self, row: int) -> AllocationState:
        """The state by which `scheduler.lifecycle` is asked: an unknown attempt whose stop is committed is stopping."""
        state = self.state(row)
        stopping = state is AllocationState.UNKNOWN and self.stop_index[row] > 0
        return AllocationState.STOPPING if stopping else state

    def states(self, rows: Int64s) -> Int64s:
        """State codes (positions in `STATES`) of many rows."""
        return self._state.gather(rows)

    def order_stop(self, rows: Int64s, index: int) -> None:
        """Stop attempts that were placed or running, by a decision committed at `index`."""
        self._state.scatter(rows, STATE_CODE[AllocationState.STOPPING])
        self.stop_index.scatter(rows, index)

    def need(self, row: int) -> Capacity:
        """What the attempt books."""
        return Capacity(self._cpu[row], self._memory[row], self._pids[row])

    def previous(self, row: int) -> int:
        """The attempt before, or NONE."""
        return self._previous[row] - 1

    def chain(self, row: int) -> list[int]:
        """`row` and the kept attempts before it, newest first."""
        rows = []
        while row != NONE:
            rows.append(row)
            row = self.previous(row)
        return rows

    def find(self, newest: int, epoch: int) -> int:
        """The row of `epoch` in the chain that starts at `newest`, or NONE."""
        row = newest
        while row != NONE and self.epoch[row] != epoch:
            row = self.previous(row)
        return row

    def drop(self, newest: int) -> None:
        """Free a whole chain; none of it may be live."""
        for row in self.chain(newest):
            self._free(row)

    def drop_many(self, newest: Int64s) -> None:
        """`drop` for many chains at once."""
        rows, chains = newest, [newest]
        while len(rows):
            rows = self._previous.gather(rows) - 1
            rows = rows[rows != NONE]
            chains.append(rows)
        dropped = np.concatenate(chains)
        assert not IS_LIVE[self.states(dropped)].any(), "a live attempt is never forgotten"
        self.table.free_many(dropped)
        for row in dropped.tolist():
            self._forget(row)

    def _trim(self, newest: int) -> None:
        """Free ended attempts beyond `HISTORY_KEPT`; what is still booked on a lost node stays, however old."""
        rows = self.chain(newest)
        if len(rows) <= HISTORY_KEPT + 1:
            return
        kept = rows[HISTORY_KEPT : HISTORY_KEPT + 1]
        for row in rows[HISTORY_KEPT + 1 :]:
            if self._state[row] in LIVE_CODES:
                kept.append(row)
            else:
                self._free(row)
        for row, before in zip(kept, [*kept[1:], NONE], strict=True):
            self._previous[row] = before + 1

    def _free(self, row: int) -> None:
        assert self._state[row] not in LIVE_CODES, "a live attempt is never forgotten"
        self.table.free_row(row)
        self._forget(row)

    def _forget(self, row: int) -> None:
        self.ports.discard(row)
        self.cgroups.discard(row)
        self.exits.discard(row)

    def used_rows(self) -> Int64s:
        """Rows that hold an attempt, ascending."""
        return np.flatnonzero(self.epoch.dense(self.table.rows))

    def snapshot(self) -> AttemptTable:
        """The same attempts, held still; O(pages)."""
        still = AttemptTable(self.table.snapshot())
        still.ports, still.cgroups, still.exits = (
            self.ports.snapshot(), self.cgroups.snapshot(), self.exits.snapshot()
        )  # fmt: skip
        return still

    def sections(self) -> dict[str, Section]:
        """What of this is replicated: all of it."""
        objects: dict[str, Section] = {
            "attempts/ports": self.ports,
            "attempts/cgroups": self.cgroups,
            "attempts/exits": self.exits,
        }
        return {**self.table.sections("attempts"), **objects}
