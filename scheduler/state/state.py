"""The replicated state: committed commands in, results out.

Owns: the order of application, decoding, the digest.  Must not know: consensus, time, the
network, or who reads the views.  `apply` is pure in the sense that matters here: the same
commands at the same indexes give the same results and the same digest on every replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, assert_never

import msgspec

from scheduler import commands
from scheduler.commands import Command
from scheduler.engine.world import World
from scheduler.errors import CommandTooNew
from scheduler.session import Assignment, StopOrder
from scheduler.state import (
    collecting,
    listing,
    losses,
    marking,
    membership,
    planning,
    reporting,
    shards,
    submission,
    views,
)
from scheduler.state.books import Books
from scheduler.state.nodes import Registration
from scheduler.state.results import Result
from scheduler.state.snapshot import FrozenState, thaw


class State:
    """Everything that is replicated.  `index` and `term` are those of the last applied entry."""

    def __init__(self) -> None:
        self.index = 0
        self.term = 0
        self.books = Books()
        self._digest: tuple[int, str] | None = None

    def apply(self, index: int, term: int, data: bytes) -> Result:
        """Apply one COMMAND entry.

        Args:
            index: log index, higher than any applied before.
            term: the entry's term.
            data: an encoded `commands.Envelope`.

        Returns:
            The command's result; `Result.changes` are trace events.  Data that is no
            command gives code ``bad-command`` and changes nothing, the same everywhere.

        Raises:
            CommandTooNew: the command's version is newer than this program; the replica must stop.
        """
        self._check_order(index, term)
        try:
            command = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            result = Result(
                index=index,
                code="bad-command",
                message=f"entry {index} holds no command: {error}",
                hint="another program wrote to this log",
            )
        else:
            result = self._apply(index, command)
        self.advance(index, term)
        return result

    def advance(self, index: int, term: int) -> None:
        """Pass an entry that holds no command (a leader's first entry, a configuration)."""
        self._check_order(index, term)
        self.index, self.term = index, term

    def _check_order(self, index: int, term: int) -> None:
        assert index > self.index, f"entry {index} comes after {self.index}"
        assert term >= self.term, f"term {term} is older than {self.term}"

    def _apply(self, index: int, command: Command) -> Result:
        books = self.books
        match command:
            case commands.Plan():
                return planning.apply_plan(books, index, command)
            case commands.ReportStatus():
                return reporting.report(books, index, command)
            case commands.SubmitJob():
                return submission.submit(books, index, command)
            case commands.StopJob():
                return submission.stop(books, index, command)
            case commands.StopUnknown():
                return reporting.stop_unknown(books, index, command)
            case commands.RegisterNode():
                return membership.register(books, index, command)
            case commands.SetNodeState():
                return membership.set_state(books, index, command)
            case commands.SetNodeLabels():
                return marking.set_labels(books, index, command)
            case commands.SetNodeTaints():
                return marking.set_taints(books, index, command)
            case commands.Collect():
                return collecting.collect(books, index, command)
            case commands.NodesLost():
                return losses.lose(books, index, command)
            case commands.NodeSettled():
                return losses.settle(books, index, command)
            case commands.SetOwners():
                return shards.set_owners(books.shards, index, command)
        assert_never(command)

    def freeze(self) -> FrozenState:
        """The state as it is now, held still; O(pages)."""
        return FrozenState(self.index, self.term, self.books)

    def restore(self, index: int, term: int, chunks: Iterable[bytes]) -> None:
        """Become the state that was frozen at `index`; on an error nothing is changed.

        Raises:
            ValueError: `chunks` are no whole state of that index and term.
            SnapshotTooNew: a newer program wrote them.
        """
        self.books = thaw(index, term, chunks)
        self.index, self.term = index, term
        self._digest = None

    def digest(self) -> str:
        """32 hexadecimal digits over everything replicated; pages unchanged since the last one cost nothing."""
        if self._digest is None or self._digest[0] != self.index:
            self._digest = (self.index, self.freeze().digest())
        return self._digest[1]

    def world(self, absent: Sequence[str] = (), owner: str = "") -> World:
        """The nodes as placement sees them; `absent` have no live session, those of `owner` are looked at first."""
        return views.world(self.books, absent, owner)

    def job_version(self, job: str) -> int:
        """The job's version, 0 when there is no such job."""
        record = self.books.jobs.get(job)
        return 0 if record is None else record.version

    def job_state(self, job: str) -> str | None:
        """One word for the job (`lifecycle.JobState`), without listing its allocations."""
        record = self.books.jobs.get(job)
        return None if record is None else views.state_of(self.books, record)

    def registration(self, node: str) -> Registration | None:
        """What is committed about a node."""
        return self.books.nodes.entry(node)

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, without their allocations, by name."""
        return [views.job_summary(self.books, job) for job in sorted(self.books.jobs, key=lambda job: job.id)]

    def job(self, job: str) -> dict[str, Any] | None:
        """One job (``namespace/name``) with its allocations, or None."""
        record = self.books.jobs.get(job)
        return None if record is None else views.job_detail(self.books, record)

    def job_head(self, job: str) -> dict[str, Any] | None:
        """One job without its allocations, or None."""
        record = self.books.jobs.get(job)
        return None if record is None else views.job_head(self.books, record)

    def listing(self, job: str) -> listing.Listing:
        """The allocations of a job that exists."""
        return listing.Listing(self.books, self.books.jobs.by_id[job])

    def allocation(self, allocation: str) -> dict[str, Any] | None:
        """One allocation (``namespace/name.index``) by its newest attempt, or None."""
        return listing.allocation(self.books, allocation)

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes by id."""
        nodes = self.books.nodes
        return [views.node(self.books, nodes.slot_of[name]) for name in sorted(nodes.slot_of)]

    def node(self, node: str) -> dict[str, Any] | None:
        """One node with the ids of what is on it, or None."""
        slot = self.books.nodes.slot_of.get(node)
        return None if slot is None else views.node_detail(self.books, slot)

    def desired_for(self, node: str) -> tuple[tuple[Assignment, ...], tuple[StopOrder, ...]]:
        """What the node shall run and what it has to stop; both empty for an unknown node."""
        slot = self.books.nodes.slot_of.get(node)
        return ((), ()) if slot is None else views.desired(self.books, slot)

    def unsure_on(self, node: str) -> tuple[tuple[str, int], ...]:
        """(allocation, epoch) of the attempts on the node that it has not told of since it came back."""
        slot = self.books.nodes.slot_of.get(node)
        return () if slot is None else losses.unsure(self.books, slot)

    def stop_grace_s(self, node: str) -> int | None:
        """The largest stop grace among the node's `stop` workloads; None when it holds none."""
        slot = self.books.nodes.slot_of.get(node)
        return None if slot is None else losses.stop_grace_s(self.books, slot)

    def changed_nodes(self, since_index: int) -> list[str]:
        """Nodes whose desired set or registration changed after `since_index`; O(changed)."""
        return self.books.nodes.changed_since(since_index)


def _decode(data: bytes) -> Command:
    try:
        return commands.decode(data)
    except msgspec.DecodeError:
        try:
            version, _ = msgspec.msgpack.decode(data, type=tuple[int, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            version = 0
        if version > commands.VERSION:
            raise CommandTooNew(
                f"the log holds a command of version {version}, this program knows {commands.VERSION}",
                hint="start the newer program on this data directory",
            ) from None
        raise
