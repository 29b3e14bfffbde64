"""The leader's side of log replication and the commit rule (§5.3, §5.4.2; dissertation §10.2).

Owns: what the leader appends, sends to each follower and counts as committed.  Must not know: how it
was elected, or what followers do with a message.

Invariants: Leader Append-Only; an entry commits only when it, or a later one, is of the leader's own term and
durable on a majority (Figure 8); every acknowledgement pushes what its window now lets pass.
"""

from __future__ import annotations

from raft.effects import Apply, Committed, ProposalAppended, ProposalRefused, Role
from raft.events import Proposal
from raft.log import entry_bytes
from raft.messages import (
    COMMAND,
    CONFIGURATION,
    NOOP,
    Append,
    AppendReply,
    Configuration,
    Entry,
    SnapshotReply,
    encode_configuration,
)
from raft.progress import Pace, Progress
from raft.quorum import jointly_agreed
from raft.snapshots import Transfers
from raft.state import NEVER_NS, State

APPLY_ENTRIES_MAX = 1024
"""Entries in one `Apply`, so that applying a long backlog can be interleaved with other work."""


class Replication:
    """What a leader does in office."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.transfers = Transfers(state)
        config = state.config
        self._messages_max = config.max_inflight_messages
        self._bytes_max = config.max_inflight_bytes
        self._entries_reserved = min(1024, config.log_entries_max // 8)  # for no-ops, without which nothing commits
        self._bytes_reserved = min(1 << 20, config.log_bytes_max // 8)
        self.sequence = 0
        self._cached: tuple[tuple[int, int, int, int, int], Append] | None = None
        self.beat_deadline_ns = NEVER_NS
        self.commit_deadline_ns = NEVER_NS
        self._office_deadline_ns = NEVER_NS

    @property
    def deadline_ns(self) -> int:
        """When the leader must be woken: to beat, to announce a commit, or to look after its majority and its disk."""
        disk_deadline_ns = self._state.disk_deadline_ns() if self._state.progress else NEVER_NS
        return min(self.beat_deadline_ns, self.commit_deadline_ns, self._office_deadline_ns, disk_deadline_ns)

    def start(self) -> None:
        """Open the term with a no-op: only an entry of the own term can commit the earlier ones (§5.4.2, §8)."""
        state = self._state
        next_index = state.log.last_index + 1
        state.progress = {peer: Progress(next_index, state.now_ns, state.members[peer]) for peer in state.peers}
        self.sequence = 0
        self.commit_deadline_ns = NEVER_NS
        state.append((Entry(state.term, next_index, NOOP, b""),))
        self._office_deadline_ns = self._quorum_deadline_ns()
        self.beat()

    def reconfigure(self, configuration: Configuration) -> None:
        """Append a configuration, which counts at once (§6), and send it to everybody it names."""
        state = self._state
        index = state.log.last_index + 1
        state.append((Entry(state.term, index, CONFIGURATION, encode_configuration(configuration)),))
        before = state.progress
        state.progress = {
            peer: before[peer]
            if peer in before and before[peer].store == state.members[peer]
            else Progress(index, state.now_ns, state.members[peer])
            for peer in state.peers
        }
        self._office_deadline_ns = self._quorum_deadline_ns()
        self.push_all()

    # -- proposals -----------------------------------------------------------------------------

    def propose(self, proposals: tuple[Proposal, ...], closed: str = "") -> None:
        """Append a batch of commands and send it on; what has no room is refused, by code.

        `closed` is the code when the log takes no commands at all now.
        """
        state = self._state
        if state.role is not Role.LEADER or closed:
            self._refuse(proposals, closed if state.role is Role.LEADER else "not-leader")
            return
        accepted, code = self._with_room(proposals)
        if accepted:
            term, first = state.term, state.log.last_index + 1
            state.append(
                [Entry(term, index, COMMAND, p.data) for index, p in enumerate(accepted, first)], commands=True
            )
            state.effects += [ProposalAppended(p.id, term, index) for index, p in enumerate(accepted, first)]
            self.push_all()
        if code:
            self._refuse(proposals[len(accepted) :], code)

    def _with_room(self, proposals: tuple[Proposal, ...]) -> tuple[tuple[Proposal, ...], str]:
        """The longest prefix of the batch within the bounds, and the code for the rest.

        Uncommitted bytes are counted over all terms, so a new leader starts with what it inherited; one
        proposal always passes when nothing is uncommitted, whatever its size.
        """
        config, log, commit_index = self._state.config, self._state.log, self._state.commit_index
        uncommitted = log.bytes_between(commit_index, log.last_index)
        uncommitted_room = config.uncommitted_bytes_max - uncommitted
        log_room = config.log_bytes_max - self._bytes_reserved - log.size_bytes
        entries_room = config.log_entries_max - self._entries_reserved - len(log)
        wanted = entry_bytes(0) * len(proposals) + sum([len(p.data) for p in proposals])
        if wanted <= uncommitted_room and wanted <= log_room and len(proposals) <= entries_room:
            return proposals, ""
        taken = 0
        for count, proposal in enumerate(proposals):
            taken += entry_bytes(len(proposal.data))
            if count >= entries_room or taken > log_room:
                return proposals[:count], "log-full"
            if taken > uncommitted_room and (uncommitted or count):
                return proposals[:count], "overloaded"
        return proposals, ""

    def _refuse(self, proposals: tuple[Proposal, ...], code: str) -> None:
        leader = self._state.leader
        self._state.effects += [ProposalRefused(proposal.id, code, leader) for proposal in proposals]

    # -- sending -------------------------------------------------------------------------------

    def beat(self) -> None:
        """One heartbeat: an empty Append at the end of what was sent, and a new probe where one was lost.

        Its `prev_index` is the last entry sent, so a follower that missed some of the pipeline refuses
        and shows the gap; no other retransmission timer is needed.
        """
        state = self._state
        self.beat_deadline_ns = state.now_ns + state.config.beat_ns
        for peer, progress in state.progress.items():
            if not self._push(peer, progress):
                self._send_heartbeat(peer, progress)
            if progress.snapshot is not None:
                self.transfers.beat(peer, progress)

    def begin_round(self) -> int:
        """Ask all voters whether they still follow; returns the number their answers will carry (§6.4).

        The question is a heartbeat, so the next one is due a whole period later.
        """
        self.sequence += 1
        self.beat()
        return self.sequence

    def announce_commit(self) -> None:
        """Tell followers of a commit that no later message happened to carry."""
        self.commit_deadline_ns = NEVER_NS
        commit_index = self._state.commit_index
        for peer, progress in self._state.progress.items():
            if progress.commit_sent < min(commit_index, progress.match):
                self._send_heartbeat(peer, progress)

    def push_all(self) -> None:
        """Send every follower what its window lets pass."""
        for peer, progress in self._state.progress.items():
            self._push(peer, progress)

    def _push(self, peer: str, progress: Progress) -> bool:
        """Send entries while the window is open; returns whether any message left."""
        log, config = self._state.log, self._state.config
        if progress.next <= log.base_index and progress.pace is not Pace.SNAPSHOT:
            self.transfers.begin(peer, progress)
        sent = False
        while progress.next <= log.last_index and progress.may_send(self._messages_max, self._bytes_max):
            after = progress.next - 1
            last = log.fitting(after, config.max_message_bytes)
            self._send_entries(peer, progress, last)
            progress.sent(last, log.bytes_between(after, last))
            sent = True
        return sent

    def _send_heartbeat(self, peer: str, progress: Progress) -> None:
        """An Append without entries; never before what is compacted, of which only the base's term is known."""
        self._send_append(peer, progress, max(progress.next - 1, self._state.log.base_index), 0)

    def _send_entries(self, peer: str, progress: Progress, last: int) -> None:
        """Send entries from `next` to `last`."""
        self._send_append(peer, progress, progress.next - 1, last)

    def _send_append(self, peer: str, progress: Progress, prev: int, last: int) -> None:
        state = self._state
        progress.commit_sent = state.commit_index
        key = (state.term, prev, last, state.commit_index, self.sequence)
        cached = self._cached
        if cached is None or cached[0] != key:  # followers in step get one message object, encoded once
            entries = state.log.slice(prev + 1, last) if last > prev else ()
            prev_term = state.log.term_at(prev)
            message = Append(state.term, prev, prev_term, state.commit_index, self.sequence, entries)
            cached = self._cached = (key, message)
        state.send(peer, cached[1])

    # -- answers -------------------------------------------------------------------------------

    def on_reply(self, sender: str, reply: AppendReply) -> None:
        """Take in one acknowledgement or refusal; repeated and reordered ones do no harm."""
        state = self._state
        if state.role is not Role.LEADER or reply.term != state.term:
            return
        progress = state.progress[sender]
        if progress.pace is Pace.SNAPSHOT:
            self.transfers.heard(sender, progress)
        progress.heard_ns = state.now_ns
        progress.sequence_acked = max(progress.sequence_acked, min(reply.sequence, self.sequence))
        if reply.accepted:
            match = min(reply.match_index, state.log.last_index)
            useful = progress.pace is not Pace.SNAPSHOT or match >= state.log.base_index
            if useful and progress.acknowledged(match):
                self.advance_commit()
        elif not progress.is_stale_refusal(reply.match_index):
            progress.back_up(self._agreement_hint(reply), reply.match_index)
        self._push(sender, progress)

    def on_snapshot_reply(self, sender: str, reply: SnapshotReply) -> None:
        """A follower says how much of a snapshot it has."""
        state = self._state
        if state.role is not Role.LEADER or reply.term != state.term:
            return
        progress = state.progress.get(sender)
        if progress is None:
            return
        progress.heard_ns = state.now_ns
        self.transfers.on_reply(sender, progress, reply)

    def _agreement_hint(self, reply: AppendReply) -> int:
        """Where to probe next: a whole term is skipped at a time (§5.3, the optimisation).

        If we have entries of the conflicting term, the logs may agree up to our last of them; if not,
        they can only agree before its first entry there.
        """
        if reply.hint_term == 0:
            return reply.hint_index
        ours = self._state.log.last_index_of_term(reply.hint_term, reply.match_index)
        return ours + 1 if ours else reply.hint_index

    # -- commit --------------------------------------------------------------------------------

    def advance_commit(self) -> None:
        """§5.3, §5.4.2: commit what a majority holds durably, if it is of our own term.

        Our own copy counts only when it is on our disk.  An entry of an earlier term is never committed by
        counting (Figure 8): a later leader may still overwrite it.
        """
        state = self._state
        held = {progress.store: progress.match for progress in state.progress.values()}
        held[state.config.store_id] = state.durability.index
        index = jointly_agreed(state.halves, held)
        if index <= state.commit_index or state.log.term_at(index) != state.term:
            return
        commit(state, index)
        if state.progress:
            self.commit_deadline_ns = min(self.commit_deadline_ns, state.now_ns + state.config.beat_ns // 4)

    # -- losing the majority -------------------------------------------------------------------

    def _quorum_deadline_ns(self) -> int:
        """When the leader must step down unless a majority answers before (check-quorum, §6.2)."""
        state = self._state
        if not state.progress:
            return NEVER_NS
        heard = {progress.store: progress.heard_ns for progress in state.progress.values()}
        heard[state.config.store_id] = state.now_ns
        return jointly_agreed(state.halves, heard) + state.config.election_timeout_ns

    def check_office(self) -> None:
        """Step down without a majority in contact (§6.2).

        Protects liveness: a leader that can commit nothing must not keep followers from electing another.
        """
        state = self._state
        self._office_deadline_ns = self._quorum_deadline_ns()
        if state.now_ns >= self._office_deadline_ns:
            state.become(Role.FOLLOWER, None, "no majority answered within the election timeout (check-quorum)")

    def check_disk(self) -> None:
        """Step down when an own write hangs for an election timeout, before anything else that the moment brings.

        Such a leader must renew nobody's patience or lease any more: no heartbeat, no read's round, no late answer to
        one counts after this.  A sole voter stays, since nobody could take its place.
        """
        state = self._state
        if state.progress and state.disk_stalls():
            state.become(Role.FOLLOWER, None, "its own write hangs longer than the election timeout")


def commit(state: State, index: int) -> None:
    """Raise the commit index and hand the entries out in order; it never goes back."""
    assert index <= state.log.last_index, "a commit index beyond the log"
    first = state.commit_index + 1
    assert first <= index, "a commit index that does not rise"
    state.commit_index = index
    state.effects.append(Committed(state.term, first, index, state.log.marks(first, index)))
    for start in range(first, index + 1, APPLY_ENTRIES_MAX):
        state.effects.append(Apply(state.log.slice(start, min(index, start + APPLY_ENTRIES_MAX - 1))))
