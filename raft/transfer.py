"""Handing leadership over on purpose (dissertation §3.10).

Owns: who may take over, when it is told to, and when the leader gives up and goes on.
Must not know: why it is wanted, or how the successor is elected (election).

Meanwhile the leader takes no proposals and changes no configuration, so that a voter can have the whole log; the
first one that has it on disk is told to stand at once.  It asks for votes past the stickiness of the others, without a
trial, and is elected like anybody else: Election Safety and Leader Completeness need nothing of this file.

Invariant (liveness): a leader is closed for an election timeout at most; after that it goes on as before.
"""

from __future__ import annotations

from raft.effects import HandedOver, HandOverRefused, Role
from raft.events import HandOver
from raft.messages import TimeoutNow
from raft.progress import Pace
from raft.state import NEVER_NS, State


class Transfer:
    """At most one hand-over of this replica; whoever asks meanwhile shares it.

    `deadline_ns`: when it counts as failed; `NEVER_NS` while there is none.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._ids: list[int] = []
        self._wanted: tuple[str, ...] | None = None
        self._told: str | None = None
        self.deadline_ns = NEVER_NS

    @property
    def closes_log(self) -> bool:
        """Whether this leader must add nothing to its log now."""
        return self.deadline_ns != NEVER_NS

    def request(self, event: HandOver) -> None:
        """Begin to hand over; refused where there is nothing to hand over, or nobody to take it."""
        state = self._state
        if state.role is not Role.LEADER:
            self._refuse([event.id], "not-leader")
        elif self.closes_log:
            self._ids.append(event.id)
        elif not self._begin((event.to,) if event.to else None):
            self._refuse([event.id], "no-successor")
        else:
            self._ids = [event.id]

    def prefer(self, wanted: tuple[str, ...] | None) -> None:
        """Hand over to one of `wanted` (None: to anyone) as soon as one can take it; nobody waits for it."""
        if not self.closes_log:
            self._begin(wanted)

    def _begin(self, wanted: tuple[str, ...] | None) -> bool:
        """Returns whether anybody can be expected to take over."""
        state = self._state
        if not self._successors(wanted):
            return False
        self._wanted, self._told = wanted, None
        self.deadline_ns = state.now_ns + state.config.election_timeout_ns
        return True

    def advance(self) -> None:
        """Take the step that is due; called after every step of the core."""
        state = self._state
        if not self.closes_log:
            return
        if state.leader is not None and state.leader != state.id:
            state.effects += [HandedOver(each, state.leader) for each in self._ids]
            self._over()
        elif state.now_ns >= self.deadline_ns:
            self._refuse(self._ids, "no-successor")
            self._over()
        elif state.role is Role.LEADER and self._told is None:
            self._tell()

    def _tell(self) -> None:
        """Have the first voter stand that holds everything: of several, the one heard last."""
        state = self._state
        last = state.log.last_index
        ready = [peer for peer in self._successors(self._wanted) if state.progress[peer].match == last]
        if ready:
            self._told = max(ready, key=lambda peer: (state.progress[peer].heard_ns, peer))
            state.send(self._told, TimeoutNow(state.term))

    def _successors(self, wanted: tuple[str, ...] | None) -> list[str]:
        """The other voters of the newest configuration that were heard within the election timeout."""
        state = self._state
        configuration = state.configuration
        assert configuration is not None, "a leader has a configuration"
        since_ns = state.now_ns - state.config.election_timeout_ns
        return [
            peer
            for peer, progress in sorted(state.progress.items())
            if configuration.voters.get(peer) == progress.store
            and progress.pace is not Pace.SNAPSHOT
            and progress.heard_ns >= since_ns
            and (wanted is None or peer in wanted)
        ]

    def _refuse(self, ids: list[int], code: str) -> None:
        self._state.effects += [HandOverRefused(each, code, self._state.leader) for each in ids]

    def _over(self) -> None:
        self._ids, self._told, self.deadline_ns = [], None, NEVER_NS
