"""One replica of a transcript, and its disk."""

from __future__ import annotations

from raft.core import Core
from raft.effects import (
    Persist,
    Send,
)
from raft.log import WHOLE
from raft.messages import Entry, HardState, Snapshot, SnapshotId
from tests.support.raft_table import store_of


class Place:
    """One replica and its disk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.store = store_of(name)
        self.founds = True
        self.hard = HardState(0, None)
        self.base = WHOLE
        self.disk: tuple[Entry, ...] = ()
        self.snapshots: dict[SnapshotId, Snapshot] = {}
        self.newest: Snapshot | None = None
        self.parts: dict[SnapshotId, int] = {}
        self.writes: list[Persist] = []
        self.held: list[tuple[int, Send]] = []
        self.core: Core | None = None

    def write(self) -> Persist:
        """The oldest write in flight reaches the disk."""
        write = self.writes.pop(0)
        self.hard = write.hard_state or self.hard
        if write.base is not None:
            self.base, self.disk = write.base, ()
        if write.entries:
            self.disk = self.disk[: write.entries[0].index - self.base.index - 1] + write.entries
        return write

    @property
    def end(self) -> tuple[int, int]:
        """Term and index of the last entry on disk."""
        return (self.disk[-1].term, self.disk[-1].index) if self.disk else (self.base.term, self.base.index)
