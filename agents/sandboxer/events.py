"""The words between the sandboxer's decisions and its deeds: events in, effects out.

Owns: their shapes.  Must not know: who makes or carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.sandboxer.fence import NO_LEASE, Lease
from agents.sandboxer.spec import Card, Key, Spec


@dataclass(frozen=True, slots=True)
class Status:
    """How a main process ended: a code, a signal, or unknown (both None)."""

    code: int | None
    signal: int | None
    detail: str = ""

    @property
    def known(self) -> bool:
        """Whether the kernel told."""
        return self.code is not None or self.signal is not None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, to address the answer."""

    client: int
    request: int


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAsked:
    """A client asks for a start."""

    caller: Caller
    spec: Spec
    registration: int = 0
    """The lease that a `stop` workload is to start under."""


@dataclass(frozen=True, slots=True)
class RenewAsked:
    """The node's lease was confirmed."""

    caller: Caller
    deadline_ns: int
    registration: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A client fences an allocation up to an epoch and stops what runs of it."""

    caller: Caller
    allocation: str
    epoch: int
    grace_ms: int | None
    """None = each workload's own."""


@dataclass(frozen=True, slots=True)
class ForgetAsked:
    """A client needs an exited record no more."""

    caller: Caller
    allocation: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """End; `caller` is None for SIGTERM."""

    caller: Caller | None
    stop_workloads: bool


@dataclass(frozen=True, slots=True)
class Journaled:
    """Every journal record up to `sequence` is durable."""

    sequence: int


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """Records cannot be made durable; starts are refused until `JournalRecovered`."""

    why: str


@dataclass(frozen=True, slots=True)
class JournalRecovered:
    """The journal works again."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """The processes exist and are recorded on their cgroup; exec is not confirmed yet."""

    key: Key
    pid: int
    unix_ms: int


@dataclass(frozen=True, slots=True)
class Executed:
    """The program runs."""

    key: Key


@dataclass(frozen=True, slots=True)
class StartFailed:
    """No program runs: cgroup, fork or exec failed."""

    key: Key
    why: str


@dataclass(frozen=True, slots=True)
class StartBarred:
    """No program runs: the lease ran out just before exec."""

    key: Key


@dataclass(frozen=True, slots=True)
class MainExited:
    """The main process ended.  `oom_kills` counts the kernel's kills in the cgroup."""

    key: Key
    status: Status
    oom_kills: int


@dataclass(frozen=True, slots=True)
class OomSeen:
    """The kernel killed in this cgroup for memory."""

    key: Key
    oom_kills: int


@dataclass(frozen=True, slots=True)
class GroupEmpty:
    """No process of the attempt is left."""

    key: Key


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline may have passed."""


Event = (
    StartAsked
    | RenewAsked
    | StopAsked
    | ForgetAsked
    | ShutdownAsked
    | Journaled
    | JournalFailed
    | JournalRecovered
    | Spawned
    | Executed
    | StartFailed
    | StartBarred
    | MainExited
    | OomSeen
    | GroupEmpty
    | Tick
)


# -- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Journal:
    """Append `record` to the journal; answered by `Journaled`."""

    sequence: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spawn:
    """Make the cgroup and the processes; answered by `Spawned` or `StartFailed`."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the main process."""

    key: Key


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to every process of the attempt; answered by `MainExited` and `GroupEmpty`."""

    key: Key


@dataclass(frozen=True, slots=True)
class Release:
    """Remove the attempt's cgroups: it has no process, and its exit is durable."""

    key: Key


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove the attempt's output."""

    key: Key


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a caller."""

    caller: Caller
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse a caller."""

    caller: Caller
    code: str
    message: str
    hint: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell clients and trace.  `kind`: started | stopping | oom | exited | adopted."""

    kind: str
    sequence: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fenced:
    """Tell the trace: this attempt is being ended for want of a lease."""

    record: dict[str, Any]
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """Tell the trace: the lease ran out, and how many attempts it ends."""

    deadline_ns: int
    fenced: int


@dataclass(frozen=True, slots=True)
class KeepLease:
    """Write the lease on the node's cgroup, for the next sandboxer."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do: leave; `clean` removes the tree, the socket and the lock."""

    clean: bool
    callers: tuple[Caller, ...]


Effect = (
    Journal
    | Spawn
    | Terminate
    | Kill
    | Release
    | Discard
    | Reply
    | Refuse
    | Announce
    | Fenced
    | LeaseOver
    | KeepLease
    | Finish
)


# -- what a new sandboxer starts from -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Survivor:
    """An attempt found again: running (`status` None), or ended (`status`, maybe unknown)."""

    card: Card
    pid: int
    unix_ms: int
    status: Status | None
    oom_kills: int
    reason: str = ""
    """A reason found in the journal; "" = to be concluded."""
    recorded: bool = False
    """Its exit is in the journal already."""
    stop_ordered: bool = False
    """A stop was journalled for it (its epoch is fenced by a stop)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What journal and cgroup tree remember."""

    floors: dict[str, int]
    """allocation → highest epoch that must not start (again)."""
    survivors: tuple[Survivor, ...]
    lease: Lease = NO_LEASE
    """What is known of the node's lease."""
