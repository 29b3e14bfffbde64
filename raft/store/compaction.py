"""Log and snapshots together: which of them make the state after a crash, and which may go.

Owns: choosing the newest snapshot that the log goes on from, and the rule by which segments and old snapshots are
removed.  Must not know: layouts of files, or when a snapshot is taken.

The rule: two snapshots stay, and the log from the older one on.  If the newest is damaged, the state is made of
the one before and the log; without any, of the whole log.  A log whose beginning no intact snapshot stands for is
damaged beyond repair.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from raft.log import WHOLE, next_hash
from raft.messages import Base, Entry, HardState, Snapshot
from raft.store.recovery import Replay
from raft.store.segments import corrupt, segment_name

SNAPSHOTS_KEPT = 2


class Joined(Struct, frozen=True):
    """What a store begins with.

    Attributes:
        base, entries: the log; `base` is where the snapshot's writer cut it, or the snapshot itself.
        superseded: the log on disk ends before the snapshot, or contradicts it: it must begin anew behind it.
    """

    hard_state: HardState
    base: Base
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None
    superseded: bool


def join(log: Replay, held: Sequence[Snapshot]) -> Joined:
    """Put the log together with the newest snapshot that it goes on from; `held` is sorted, newest first.

    Raises:
        StoreCorrupt: there is none, though the log's beginning is gone; or log and snapshot contradict each other.
    """
    for snapshot in held:
        if log.first and snapshot.index >= log.first - 1:
            return _join(log, snapshot)
    if log.first == 1 and log.base is None:
        return Joined(log.hard_state, WHOLE, tuple(log.entries), None, False)
    if not log.whole:
        before = f"{segment_name(log.numbers[0] - 1)} is missing"
    else:
        before = f"the log begins behind index {log.first - 1}"
    raise corrupt(f"{before}, and no intact snapshot stands for what was there")


def _join(log: Replay, snapshot: Snapshot) -> Joined:
    entries, header = log.entries, snapshot.header
    position = snapshot.index - log.first + 1  # how many entries lie at or before the snapshot
    if position == 0 and log.base is not None and log.base != header.base:
        raise corrupt(f"the log goes on from another snapshot of index {snapshot.index}")
    if position > len(entries) or (position and entries[position - 1].term != snapshot.term):
        hard_state = log.hard_state
        if hard_state.term < snapshot.term:
            hard_state = HardState(snapshot.term, None)
        return Joined(hard_state, header.base, (), snapshot, True)
    tail = header.tail
    if tail.index < log.first - 1 or tail.index == snapshot.index:
        return Joined(log.hard_state, header.base, tuple(entries[position:]), snapshot, False)
    kept = entries[tail.index - log.first + 1 :]
    rolling = tail.prefix_hash
    for entry in kept[: snapshot.index - tail.index]:
        rolling = next_hash(rolling, entry)
    if rolling != header.base.prefix_hash:
        raise corrupt(f"the log up to index {snapshot.index} is not the one that its snapshot stands for")
    return Joined(log.hard_state, tail, tuple(kept), snapshot, False)


def kept(held: Sequence[Snapshot], began_index: int) -> Sequence[Snapshot]:
    """Of these, newest first, the snapshots to keep; `began_index`: where the log on disk began anew."""
    return [snapshot for snapshot in held if snapshot.index >= began_index][:SNAPSHOTS_KEPT]


def horizon(held: Sequence[Snapshot]) -> int:
    """Up to which index nothing of the log is needed, when these snapshots (newest first) are kept."""
    if len(held) < SNAPSHOTS_KEPT:
        return 0
    return min(held[0].header.tail.index, held[SNAPSHOTS_KEPT - 1].index)
