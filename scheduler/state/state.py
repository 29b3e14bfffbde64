"""The replicated state: committed commands in, results out.

Owns: the order of application, decoding, the digest.  Must not know: consensus, time, the
network, or who reads the views.  `apply` is pure in the sense that matters here: the same
commands at the same indexes give the same results and the same digest on every replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, assert_never

import msgspec

from scheduler import commands
from scheduler.commands import Command
from scheduler.engine.world import World
from scheduler.errors import CommandTooNew
from scheduler.session import Assignment, StopOrder
from scheduler.state import membership, planning, reporting, submission, views
from scheduler.state.books import Books
from scheduler.state.nodes import Registration
from scheduler.state.results import Result


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
        assert_never(command)

    def digest(self) -> str:
        """32 hexadecimal digits over everything replicated; cached until the next entry."""
        if self._digest is None or self._digest[0] != self.index:
            summary = blake2b(digest_size=16)
            summary.update(f"{self.index}:{self.term}".encode())
            for part in _digest_parts(self.books):
                summary.update(len(part).to_bytes(8, "little"))
                summary.update(part)
            self._digest = (self.index, summary.hexdigest())
        return self._digest[1]

    def world(self, absent: Sequence[str] = ()) -> World:
        """The nodes as placement sees them; `absent` are nodes without a live session."""
        return views.world(self.books, absent)

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

    def allocation(self, allocation: str) -> dict[str, Any] | None:
        """One allocation (``namespace/name.index``) by its newest attempt, or None."""
        return views.allocation(self.books, allocation)

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


def _digest_parts(books: Books) -> list[bytes]:
    jobs, nodes, attempts = books.jobs, books.nodes, books.attempts
    encode = msgspec.msgpack.Encoder(order="deterministic").encode
    parts = nodes.table.hash_parts() + attempts.table.hash_parts()
    parts.append(encode([nodes.entries, [sorted(stops.items()) for stops in nodes.stops]]))
    parts.append(encode([sorted(side.items()) for side in (attempts.ports, attempts.cgroups, attempts.exits)]))
    parts.append(encode([jobs.next_number, list(jobs.retired)]))
    for job in sorted(jobs, key=lambda job: job.number):
        fixed = [job.number, job.version, job.shape_version, job.submitted_index, job.stopped, job.live]
        parts.append(encode([fixed, job.spec, list(job.requests.items())]))
        parts.append(job.newest.astype("<i8", copy=False).tobytes())
    return parts
