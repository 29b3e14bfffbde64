"""What a leader does about the membership: replacing a wiped replica's store, and making a voter of it again.

Owns: when a configuration changes, one change at a time (§6; dissertation §4.1, §4.2.1, §4.3).
Must not know: what configurations are made of (configuration), or how entries reach the others (replication).

The way back of a replica whose disk was wiped, as configurations:

    voters n1:a n2:b n3:c                                 n3 asks, with the new store d
    voters n1:a n2:b | old n1:a n2:b n3:c, learner n3:d    joint: n1 and n2 suffice for both majorities
    voters n1:a n2:b, learner n3:d                         store c is out for good; d gets the log
    voters n1:a n2:b n3:d | old n1:a n2:b                  d has caught up
    voters n1:a n2:b n3:d

Invariants: the next change begins when the one before it is committed, in a term of which something is committed
(dissertation §4.1 and its erratum of 2015); a store once replaced never comes back; a store votes only when it holds
a configuration that names it a voter.
"""

from __future__ import annotations

from msgspec import Struct

from raft.configuration import leave_joint, promote, replace_store
from raft.effects import Role
from raft.messages import Configuration
from raft.progress import Pace, Progress
from raft.replication import Replication
from raft.state import State

LAG_ENTRIES_MAX = 1024
"""A learner counts as caught up only when it lacks no more entries than this."""


class _Asking(Struct):
    """A store asks to be taken in: since when without a pause, and when last, in nanoseconds."""

    store: str
    since_ns: int
    last_ns: int


class _Round(Struct):
    """A learner is getting everything up to `end`, the log's end when the round began (dissertation §4.2.1)."""

    store: str
    end: int
    began_ns: int


class Membership:
    """The rules of change.  What it remembers ends with the leader's office or is asked for again."""

    def __init__(self, state: State, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self._asking: dict[str, _Asking] = {}
        self._rounds: dict[str, _Round] = {}

    def start(self) -> None:
        """A new leader knows of nobody's requests."""
        self._asking, self._rounds = {}, {}

    def asked(self, sender: str, store: str) -> None:
        """A replica with a store that no configuration names wants to be taken in."""
        state = self._state
        configuration = state.configuration
        if state.role is not Role.LEADER or configuration is None:
            return
        if sender not in state.members:
            return  # a name that the configuration does not know is an operator's to add
        known, now_ns = self._asking.get(sender), state.now_ns
        if known is None or known.store != store or now_ns - known.last_ns > state.config.election_timeout_ns:
            self._asking[sender] = known = _Asking(store, now_ns, now_ns)
        known.last_ns = now_ns

    def advance(self) -> None:
        """Take the next step that is due; called after each step of a leader."""
        state = self._state
        configuration = state.configuration
        assert configuration is not None, "a leader has a configuration"
        if not (self._asking or configuration.learners or configuration.outgoing) and state.votes:
            return
        timeout_ns = state.config.election_timeout_ns
        self._asking = {name: one for name, one in self._asking.items() if state.now_ns - one.last_ns <= timeout_ns}
        self._measure(configuration)
        committed = state.configurations.index <= state.commit_index
        if not committed or state.log.term_at(state.commit_index) != state.term:
            return
        if configuration.outgoing:
            if self._may_leave(configuration):
                self._replication.reconfigure(leave_joint(configuration))
        elif not state.votes:
            state.become(Role.FOLLOWER, None, "the new configuration, now committed, is without this leader (§4.2.2)")
        elif (wanted := self._replacement(configuration)) is not None:
            self._replication.reconfigure(replace_store(configuration, *wanted))
        elif (learner := self._caught_up(configuration)) is not None:
            self._replication.reconfigure(promote(configuration, learner))
        if state.role is Role.LEADER:
            self._replication.advance_commit()  # the own disk may be all that a new quorum needs

    def _replacement(self, configuration: Configuration) -> tuple[str, str] | None:
        """The first replica whose store is to be replaced, and by which.

        The new store must have asked for an election timeout without a pause, so that no late message speaks for
        a disk that is gone; the old one must have been silent for as long, so that two processes under one name do not
        drive each other out.
        """
        state, timeout_ns = self._state, self._state.config.election_timeout_ns
        for replica, asking in sorted(self._asking.items()):
            progress = state.progress.get(replica)
            if asking.store in configuration.retired or (progress is not None and progress.store == asking.store):
                del self._asking[replica]
            elif asking.last_ns - asking.since_ns >= timeout_ns and (
                progress is not None and state.now_ns - progress.heard_ns > timeout_ns
            ):
                return replica, asking.store
        return None

    def _measure(self, configuration: Configuration) -> None:
        """Begin a learner's next round when it has all of the last one, late or not."""
        state = self._state
        for replica in configuration.learners:
            progress, known = state.progress.get(replica), self._rounds.get(replica)
            if progress is None:
                continue
            stale = known is None or known.store != progress.store
            if stale or (known is not None and progress.match >= known.end and not self._in_time(known)):
                self._rounds[replica] = _Round(progress.store, state.log.last_index, state.now_ns)

    def _in_time(self, known: _Round) -> bool:
        return self._state.now_ns - known.began_ns <= self._state.config.election_timeout_ns

    def _caught_up(self, configuration: Configuration) -> str | None:
        """A learner that got one round within an election timeout and is near the log's end now."""
        state = self._state
        for replica in sorted(configuration.learners):
            progress, known = state.progress.get(replica), self._rounds.get(replica)
            if progress is None or known is None or progress.match < known.end or not self._in_time(known):
                continue
            if progress.pace is Pace.REPLICATE and state.log.last_index - progress.match <= LAG_ENTRIES_MAX:
                return replica
        return None

    def _may_leave(self, configuration: Configuration) -> bool:
        """Whether the joint configuration has done its work.

        A new voter should have it on disk first: until then it does not know that it may vote, and without its
        vote the new configuration survives no more than the old one.  Somebody else's request ends the wait.
        """
        state = self._state
        for replica, store in sorted(configuration.voters.items()):
            if configuration.outgoing.get(replica) == store or replica == state.id:
                continue
            progress: Progress | None = state.progress.get(replica)
            if progress is not None and progress.match < state.configurations.index and not self._asking:
                return False
        return True
