"""Getting a state that was given up anew from the leader, while log and vote stay.

Owns: when a follower asks, what a leader sends it, and what is applied again afterwards.
Must not know: why the state was given up (digests), or files.

The follower wants a snapshot newer than its own newest, whose state may be wrong too: a restart must find the right one
first.  Its log goes on from there, since it begins at or before its own snapshot.  It asks as long as it wants one,
and the leader sends as long as it is asked; entries go on beside it, and are acknowledged.

Invariants: nothing leaves the log, and the commit index never goes back; what is applied again is what was committed.
"""

from __future__ import annotations

from raft.effects import Apply, Restore, Role, TakeSnapshot
from raft.messages import NOOP, Entry, RefetchRequest, Snapshot
from raft.progress import Pace
from raft.replication import APPLY_ENTRIES_MAX, Replication, commit
from raft.snapshots import compact
from raft.state import NEVER_NS, State


class Refetch:
    """One replica's side of it, whichever that is.

    `ask_deadline_ns`: when the leader is asked (again); `NEVER_NS` while the state is our own.
    """

    def __init__(self, state: State, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self.ask_deadline_ns = NEVER_NS

    # -- the follower --------------------------------------------------------------------------

    def begin(self) -> None:
        """The state is given up, and no own snapshot will be taken of it any more."""
        state = self._state
        state.diverged = True
        state.refetch_after = state.snapshot.index if state.snapshot is not None else 0
        self.ask_deadline_ns = state.now_ns

    def advance(self) -> None:
        """Ask the leader, if it is time to; called after every step of the core."""
        state = self._state
        if state.refetch_after is None:
            self.ask_deadline_ns = NEVER_NS
        elif state.now_ns >= self.ask_deadline_ns:
            self.ask_deadline_ns = state.now_ns + state.config.election_timeout_ns
            if state.role is Role.FOLLOWER and state.leader is not None:
                state.send(state.leader, RefetchRequest(state.term, state.refetch_after))

    # -- the leader ----------------------------------------------------------------------------

    def on_request(self, sender: str, request: RefetchRequest) -> None:
        """Send the newest snapshot beside the entries, or have one taken that is new enough."""
        state = self._state
        progress = state.progress.get(sender)
        if state.role is not Role.LEADER or request.term != state.term or progress is None or state.diverged:
            return
        progress.refetch_ns = state.now_ns
        if state.snapshot is not None and state.snapshot.index > request.after:
            sent = progress.snapshot
            if sent is None or (sent.index <= request.after and progress.pace is not Pace.SNAPSHOT):
                self._replication.transfers.begin_beside(sender, progress)  # the last one has arrived, and did not help
            return
        if state.log.last_index <= request.after:  # nothing is newer, and perhaps nothing will be
            state.append((Entry(state.term, state.log.last_index + 1, NOOP, b""),))
            self._replication.push_all()
        state.effects.append(TakeSnapshot(request.after))


def wanted(state: State, index: int) -> bool:
    """Whether a snapshot of `index` is one that a given-up state can be replaced by."""
    return state.refetch_after is not None and index > state.refetch_after


def take_back(state: State, snapshot: Snapshot) -> bool:
    """Take the state of a complete snapshot if it is wanted and the log holds what it stands for; returns whether."""
    if not wanted(state, snapshot.index) or not state.log.matches(snapshot.index, snapshot.term):
        return False
    if snapshot.index > state.commit_index:
        commit(state, snapshot.index)
    state.restored(snapshot)
    state.effects.append(Restore(snapshot))
    for start in range(snapshot.index + 1, state.commit_index + 1, APPLY_ENTRIES_MAX):
        state.effects.append(Apply(state.log.slice(start, min(state.commit_index, start + APPLY_ENTRIES_MAX - 1))))
    compact(state, max(snapshot.header.tail.index, state.log.base_index))
    return True
