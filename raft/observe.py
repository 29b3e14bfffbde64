"""What consensus did, in the vocabulary of the trace (DESIGN.md §10).

Owns: turning effects into trace events.  Must not know: where they go.
"""

from __future__ import annotations

from collections.abc import Sequence

from raft.core import Core
from raft.counters import Counters
from raft.effects import Appended, Committed, Diverged, Installed, Reconfigured, RoleChanged, Split, VoteCast
from raft.errors import ProtocolViolation
from raft.messages import Configuration, Entry, Message, Snapshot
from raft.protocols import Observer
from raft.writer import Written

SLOW_NS = 20_000_000
"""A write that takes longer is worth an event of its own."""


def hex_hash(value: int) -> str:
    """A prefix hash as the trace writes it: 16 hex digits."""
    return f"{value:016x}"


class Reporter:
    """Emits for one replica."""

    def __init__(self, observer: Observer, core: Core) -> None:
        self._emit = observer.emit
        self._core = core
        self._reported = (0, 0, 0)

    def recovered(self) -> None:
        """What the store held at the start of this process: its term and vote, its log, the members it names."""
        core, config = self._core, self._core.config
        self._emit(
            "store",
            id=config.store_id,
            term=core.term,
            candidate=core.voted_for,
            index=core.last_index,
            election_ms=config.election_timeout_ns // 1_000_000,
        )
        if core.last_index:
            self._recovered_log()
        if core.configuration is not None:
            self.configuration(Reconfigured(core.configuration_index, core.configuration))

    def _recovered_log(self) -> None:
        """The log, found durable; with `snapshot`, what it begins with."""
        log, last = self._core.log, self._core.last_index
        marks = dict(log.marks(min(log.first_index, last), last))
        begins: dict[str, int] = {}
        if self._core.snapshot is not None:
            begins["snapshot"] = index = self._core.snapshot.index
            marks[index] = log.hash_at(index)
        self._emit(
            "append",
            term=self._core.term,
            first=min(log.first_index, last),
            index=last,
            last_term=log.last_term,
            ph=hex_hash(log.hash_at(last)),
            marks=_hexes(sorted(marks.items())),
            recovered=True,
            **begins,
        )

    def installed(self, effect: Installed) -> None:
        """A leader's snapshot stands durably for the whole log up to its index."""
        base = effect.base
        ph = hex_hash(base.prefix_hash)
        self._emit(
            "append",
            term=effect.term,
            first=base.index,
            index=base.index,
            last_term=base.term,
            ph=ph,
            marks=[(base.index, ph)],
            recovered=True,
            snapshot=base.index,
        )

    def snapshot(self, operation: str, snapshot: Snapshot, took_ns: int) -> None:
        """A snapshot was written here, or took the place of the state."""
        self._emit(
            "disk",
            op=operation,
            index=snapshot.index,
            ph=hex_hash(snapshot.header.base.prefix_hash),
            bytes=snapshot.size_bytes,
            us=took_ns // 1000,
        )

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._emit("note", text=text)

    def appended(self, effect: Appended) -> None:
        """Entries became durable here."""
        self._range("append", effect.term, effect.first, effect.last, effect.hashes)

    def committed(self, effect: Committed) -> None:
        """The commit index rose."""
        self._range("commit", effect.term, effect.first, effect.last, effect.hashes)

    def applied(self, entries: Sequence[Entry]) -> None:
        """The state machine has these entries."""
        last = entries[-1].index
        self._emit("apply", first=entries[0].index, index=last, ph=hex_hash(self._core.log.hash_at(last)))

    def digest(self, index: int, digest: str) -> None:
        """The state's digest at `index`."""
        self._emit("digest", index=index, digest=digest)

    def diverged(self, effect: Diverged) -> None:
        """The own state is not a majority's."""
        text = f"the state at {effect.index} has digest {effect.digest}, a majority has {effect.agreed}"
        self._emit("note", text=f"{text}: it is given up and fetched anew", index=effect.index)

    def split(self, effect: Split) -> None:
        """No majority of the voters has the same state, or that is over."""
        told = ", ".join(f"{name} {digest}" for name, digest in effect.digests)
        text = (
            f"no majority has the same state at {effect.index} ({told}): writes are halted" if told else "writes go on"
        )
        self._emit("note", text=text, index=effect.index)

    def role(self, effect: RoleChanged) -> None:
        """Role, term or known leader changed."""
        self._emit("role", role=effect.role.value, term=effect.term, leader=effect.leader, why=effect.why)

    def configuration(self, effect: Reconfigured) -> None:
        """Another configuration counts here from now on."""
        members = effect.configuration
        told = {} if members is None else {
            "voters": members.voters, "outgoing": members.outgoing, "learners": members.learners,
        }  # fmt: skip
        self._emit(
            "note",
            text=f"configuration {effect.index}: {describe(members)}",
            index=effect.index,
            **told,
        )

    def vote(self, effect: VoteCast) -> None:
        """A vote became durable."""
        self._emit("vote", term=effect.term, candidate=effect.candidate, why=effect.why)

    def violation(self, sender: str, message: Message, violation: ProtocolViolation) -> None:
        """A peer sent what no correct peer sends."""
        self._emit("drop", fr=sender, type=type(message).__name__, why=f"protocol-violation: {violation.message}")

    def disk(self, written: Written) -> None:
        """A write was slow or failed; others are in the totals."""
        if written.error is None and written.duration_ns < SLOW_NS:
            return
        fields = {"op": "append", "bytes": written.size_bytes, "us": written.duration_ns // 1000}
        if written.error is not None:
            self._emit("disk", **fields, err=str(written.error))
        else:
            self._emit("disk", **fields)

    def disk_totals(self, counters: Counters) -> None:
        """Writes since the last call, if there were any."""
        writes = counters.writes
        now = (writes.count, counters.written_bytes, writes.total_ns)
        count, size, took_ns = (new - old for new, old in zip(now, self._reported, strict=True))
        if count:
            self._reported = now
            self._emit("disk", op="total", count=count, bytes=size, us=took_ns // 1000)

    def _range(self, kind: str, term: int, first: int, last: int, marks: tuple[tuple[int, int], ...]) -> None:
        assert marks, "a range is marked"
        assert marks[-1][0] == last, "a range is marked at its end"
        self._emit(
            kind,
            term=term,
            first=first,
            index=last,
            last_term=self._core.log.term_at(last),
            ph=hex_hash(marks[-1][1]),
            marks=_hexes(marks),
        )


def describe(configuration: Configuration | None) -> str:
    """Who votes and who learns, in words; stores by their first four digits."""
    if configuration is None:
        return "none"
    parts = [
        f"{what} {' '.join(f'{name}:{store[:4]}' for name, store in sorted(stores.items()))}"
        for what, stores in (
            ("voters", configuration.voters),
            ("and the old voters", configuration.outgoing),
            ("learners", configuration.learners),
        )
        if stores
    ]
    return ", ".join(parts)


def _hexes(marks: Sequence[tuple[int, int]]) -> list[tuple[int, str]]:
    return [(index, hex_hash(value)) for index, value in marks]
