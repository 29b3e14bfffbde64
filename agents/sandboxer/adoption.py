"""What a new sandboxer finds: the journal and the cgroup tree, put together.

Owns: the rules of who is still running, and how sure that is.
Must not know: clients, or how anything is started.

The cgroup tree is the truth about what runs; it cannot outlive the kernel.  A process is trusted
only if, after its pidfd is open, start time and cgroup are those recorded: a pid that was reused
meanwhile fails that, and nothing is ever signalled by number.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from agents.sandboxer import attempt as attempts
from agents.sandboxer import fence, protocol
from agents.sandboxer.birth import WAITING_NAME
from agents.sandboxer.cgroups.base import Backend
from agents.sandboxer.events import Memory, Status, Survivor
from agents.sandboxer.fence import NO_LEASE, Lease
from agents.sandboxer.journal_file import Record
from agents.sandboxer.kernel import LINUX
from agents.sandboxer.linux import ProcessStat
from agents.sandboxer.spec import Card, Key

if TYPE_CHECKING:
    from agents.sandboxer.surroundings import Kernel

IDENTITY_VERSION: Final = 1
NOT_STARTED: Final = "its sandboxer ended before the program ran"
UNSEEN: Final = "it ended while no sandboxer was there to see it"
REBOOTED: Final = "the machine was started anew"


@dataclass(slots=True)
class Found:
    """Descriptors of an attempt found running."""

    name: str
    pid: int
    pidfd: int
    init_pid: int = 0
    init_pidfd: int = -1
    network: dict[str, Any] | None = None
    """Its address and published ports, where it has its own."""
    user: int = 0
    """Who it is outside its user namespace; 0 = it has none."""


@dataclass(slots=True)
class Recall:
    """Everything a new sandboxer knows."""

    memory: Memory
    found: dict[Key, Found]
    records: list[Record]
    """The journal, rewritten without what is forgotten."""
    leftovers: tuple[str, ...]
    """Groups that are nobody's: their sandboxer died while making them; killed, to be removed."""


@dataclass(slots=True)
class _Remembered:
    """One attempt by its journal records."""

    card: Card
    boot: str
    started_pid: int = 0
    stop: bool = False
    exited: Record | None = None


@dataclass(slots=True)
class _Journal:
    floors: dict[str, int] = field(default_factory=dict)
    attempts: dict[Key, _Remembered] = field(default_factory=dict)
    boot: str = ""

    def take(self, record: Record) -> None:
        kind = record.get("k")
        if kind == "boot":
            self.boot = str(record.get("b", ""))
            return
        key = (str(record["a"]), int(record["e"]))
        if kind in ("intent", "fence", "exited"):
            self.floors[key[0]] = max(self.floors.get(key[0], 0), key[1])
        if kind in ("intent", "exited") and key not in self.attempts:
            self.attempts[key] = _Remembered(card_of(record), self.boot)
        attempt = self.attempts.get(key)
        if attempt is None:
            return
        if kind == "started":
            attempt.started_pid = int(record["p"])
        elif kind == "stop":
            attempt.stop = True
        elif kind == "exited":
            attempt.exited = record
        elif kind == "forget":
            del self.attempts[key]


def card_of(record: dict[str, Any]) -> Card:
    """Inverse of `attempts.card_fields`; KeyError or ValueError for a record that is none."""
    return Card(
        allocation=str(record["a"]),
        epoch=int(record["e"]),
        attempt=int(record["n"]),
        job=str(record["j"]),
        grace_ms=int(record["g"]),
        on_disconnect=str(record["d"]),
        digest=str(record["h"]),
    )


def identity_bytes(card: Card, boot_id: str, processes: dict[str, Any]) -> bytes:
    """What is written on an attempt's cgroup; `processes`: pid, ticks, init, init_ticks, t, user and net."""
    return json.dumps({"v": IDENTITY_VERSION, "boot": boot_id, **attempts.card_fields(card), **processes}).encode()


class Verdict(Enum):
    """Who has the number of a process that was recorded."""

    GONE = "gone"
    WAITS = "waits"
    """It stands before its exec: the program never ran."""
    OURS = "ours"


def judged(stat: ProcessStat | None, ticks: int, in_group: Callable[[], bool]) -> Verdict:
    """Whether it is the process that started at `ticks`; one that lives must be in its group, too.

    `stat` was read after its pidfd was opened, so what is concluded is true of the pidfd's process.
    """
    if stat is None or stat.start_ticks != ticks:
        return Verdict.GONE
    if not stat.zombie and not in_group():
        return Verdict.GONE
    return Verdict.WAITS if stat.name == WAITING_NAME else Verdict.OURS


def recover(backend: Backend, records: list[Record], kernel: Kernel) -> Recall:
    """Everything that is to be known at the start, the lease that was kept included."""
    boot_id = kernel.boot_id()
    return recall(backend, records, boot_id, fence.decode(backend.kept_lease(), boot_id), kernel)


def recall(
    backend: Backend, records: list[Record], boot_id: str, lease: Lease = NO_LEASE, kernel: Kernel = LINUX
) -> Recall:
    """Put journal and cgroup tree together."""
    journal = _Journal()
    for record in records:
        with contextlib.suppress(KeyError, ValueError, TypeError):
            journal.take(record)
    survivors: list[Survivor] = []
    found: dict[Key, Found] = {}
    seen: dict[Key, bool] = {}
    leftovers: list[str] = []
    for name in backend.names():
        identity = _identity(backend, name, boot_id)
        if identity is None:
            backend.kill(name)
            leftovers.append(name)
            continue
        card = card_of(identity)
        seen[card.key] = True
        survivor, descriptors = _from_tree(backend, kernel, name, identity, card, journal.attempts.get(card.key))
        survivors.append(survivor)
        if descriptors is not None:
            found[card.key] = descriptors
    for key, attempt in journal.attempts.items():
        if key not in seen:
            survivors.append(_from_journal(attempt, boot_id))
    memory = Memory(journal.floors, tuple(survivors), lease)
    return Recall(memory, found, _compacted(journal, survivors, boot_id), tuple(leftovers))


def _identity(backend: Backend, name: str, boot_id: str) -> dict[str, Any] | None:
    """A group's identity, if it is whole, of this boot, and of this name."""
    try:
        identity = json.loads(backend.identity(name) or b"")
        card = card_of(identity)
    except (ValueError, KeyError, TypeError):
        return None
    matches = protocol.directory_name(card.allocation, card.epoch) == name and identity.get("boot") == boot_id
    return identity if matches else None


def _from_tree(
    backend: Backend, kernel: Kernel, name: str, identity: dict[str, Any], card: Card, remembered: _Remembered | None
) -> tuple[Survivor, Found | None]:
    pid, unix_ms = int(identity.get("pid", 0)), int(identity.get("t", 0))
    oom_kills = backend.oom_kills(name)
    stop = remembered is not None and remembered.stop
    if remembered is not None and remembered.exited is not None:
        return _recorded(card, remembered.exited), None
    if not pid:
        never = Status(None, None, NOT_STARTED)
        return Survivor(card, 0, unix_ms, never, oom_kills, "start-failed"), None
    init_pid = int(identity.get("init", 0))
    init_pidfd, _ = _opened(kernel, init_pid, int(identity.get("init_ticks", 0)), lambda: True)
    pidfd, verdict = _opened(kernel, pid, int(identity.get("ticks", 0)), lambda: backend.contains(name, pid))
    waits = verdict is Verdict.WAITS
    unseen = Status(None, None, NOT_STARTED if waits else UNSEEN)
    reason = "start-failed" if waits else ""
    status = None if pidfd >= 0 else unseen
    survivor = Survivor(card, pid, unix_ms, status, oom_kills, reason, stop_ordered=stop)
    init_pid = init_pid if init_pidfd >= 0 else 0
    user = int(identity.get("user", 0))
    return survivor, Found(name, pid, pidfd, init_pid, init_pidfd, identity.get("net"), user)


def _opened(kernel: Kernel, pid: int, ticks: int, in_group: Callable[[], bool]) -> tuple[int, Verdict]:
    """A pidfd of the process that was recorded, -1 unless it is ours; opened first, judged then."""
    if not pid:
        return -1, Verdict.GONE
    try:
        pidfd = kernel.open_process(pid)
    except OSError:
        return -1, Verdict.GONE
    verdict = judged(kernel.stat(pid), ticks, in_group)
    if verdict is not Verdict.OURS:
        kernel.close(pidfd)
        pidfd = -1
    return pidfd, verdict


def _from_journal(attempt: _Remembered, boot_id: str) -> Survivor:
    """An attempt without a cgroup."""
    if attempt.exited is not None:
        return _recorded(attempt.card, attempt.exited)
    if attempt.boot != boot_id:
        status, reason = Status(None, None, REBOOTED), ""
    elif attempt.started_pid:
        status, reason = Status(None, None, UNSEEN), ""
    else:  # the cgroup is made before the fork, and removed only after the exit is durable
        status, reason = Status(None, None, NOT_STARTED), "start-failed"
    return Survivor(attempt.card, attempt.started_pid, 0, status, 0, reason)


def _recorded(card: Card, record: Record) -> Survivor:
    ended = record.get("x", {})
    known = bool(ended.get("status_known"))
    status = Status(
        ended.get("code") if known else None,
        ended.get("signal") if known else None,
        str(ended.get("detail", "")),
    )
    return Survivor(
        card,
        int(record.get("p", 0)),
        int(record.get("t", 0)),
        status,
        int(record.get("o", 0)),
        str(ended.get("reason", "lost")),
        recorded=True,
    )


def _compacted(journal: _Journal, survivors: list[Survivor], boot_id: str) -> list[Record]:
    records: list[Record] = [{"k": "boot", "b": boot_id}]
    records += [{"k": "fence", "a": allocation, "e": epoch} for allocation, epoch in journal.floors.items()]
    for survivor in survivors:
        card = survivor.card
        remembered = journal.attempts.get(card.key)
        if survivor.recorded and remembered is not None and remembered.exited is not None:
            records.append(remembered.exited)
            continue
        records.append({"k": "intent", **attempts.card_fields(card)})
        if survivor.pid:
            records.append({"k": "started", "a": card.allocation, "e": card.epoch, "p": survivor.pid})
        if survivor.stop_ordered:
            records.append({"k": "stop", "a": card.allocation, "e": card.epoch})
    return records
