"""Who owns which arcs of the ring: replicated, and what follows from it for nodes and jobs.

Owns: the history of owner sets, applying SetOwners, and the owner of a node or job at an epoch.
Must not know: who is alive, or how placement uses the owners.

Nothing is kept a node: its owner follows from the owner set and its name.  `epoch` 0 is the time
before the first SetOwners, when nobody owns anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cluster.ring import Int64s, Ring, positions
from cluster.shards import HISTORY_MAX, Assigned, moved_share, ring_of
from scheduler.commands import SetOwners
from scheduler.state.paged import Section, Value
from scheduler.state.results import OwnersResult

OWNERS_MAX: Final = 64
KEYS_KEPT: Final = 200_000
PROBES: Final = tuple(f"probe-{number}" for number in range(32))
"""Keys whose owners the trace is told with every change: whoever judges a run sees from them which arcs moved."""

Flags = NDArray[np.bool_]


class ShardTable:
    """The owner sets and, derived from the newest, caches for many nodes."""

    def __init__(self) -> None:
        self.history: tuple[Assigned, ...] = ()
        """Oldest first, the newest is in force; at most `HISTORY_MAX`."""
        self._owner_of: dict[str, str | None] = {}
        self._positions: Int64s = np.zeros(0, dtype=np.int64)
        self._numbers: tuple[int, Int64s] = (-1, self._positions)

    @property
    def epoch(self) -> int:
        """Epoch of the owners in force; 0 = nobody owns anything yet."""
        return self.history[-1].epoch if self.history else 0

    @property
    def owners(self) -> tuple[str, ...]:
        """Replicas that own arcs now, sorted."""
        return self.history[-1].owners if self.history else ()

    @property
    def ring(self) -> Ring:
        """The ring in force."""
        return ring_of(self.owners)

    def put(self, history: Sequence[Assigned]) -> None:
        """Take a history over, as committed or as read from a snapshot."""
        self.history = tuple(history[-HISTORY_MAX:])
        self._owner_of.clear()
        self._numbers = (-1, self._positions)

    def owner(self, key: str) -> str | None:
        """The replica that a node (by id) or a job (``namespace/name``) belongs to."""
        found = self._owner_of.get(key, "")
        if found == "":
            if len(self._owner_of) >= KEYS_KEPT:
                self._owner_of.clear()
            found = self._owner_of[key] = self.ring.owner(key)
        return found

    def owners_at(self, epoch: int) -> tuple[str, ...] | None:
        """Who owned arcs at that epoch; None when that is too long ago to tell."""
        if epoch == 0 and (not self.history or self.history[0].epoch == 1):
            return ()
        return next((assigned.owners for assigned in self.history if assigned.epoch == epoch), None)

    def owned_by(self, replica: str, names: Sequence[str]) -> Flags:
        """Which nodes are the replica's.  `names` are the nodes by slot: only ever added to."""
        epoch, numbers = self._numbers
        if epoch != self.epoch or len(numbers) != len(names):
            known = len(self._positions)
            if known < len(names):
                self._positions = np.concatenate([self._positions, positions(names[known:])])
            numbers = self.ring.numbers_at(self._positions[: len(names)])
            self._numbers = (self.epoch, numbers)
        owners = self.owners
        return np.equal(numbers, owners.index(replica) if replica in owners else -2)

    def moved_since(self, node: str, epoch: int) -> bool:
        """Whether the node has changed owners after `epoch`; yes, when that is too long ago to tell."""
        if epoch >= self.epoch:
            return False
        since = [assigned.owners for assigned in self.history if assigned.epoch > epoch]
        if len(since) < len(self.history):
            before = self.history[-len(since) - 1].owners
        elif self.history[0].epoch == epoch + 1:
            before = ()
        else:
            return True
        return len(dict.fromkeys(ring_of(owners).owner(node) for owners in (before, *since))) > 1

    def sections(self) -> dict[str, Section]:
        """What of this is replicated: the history."""
        return {"shards/history": Value(tuple[Assigned, ...], lambda: self.history, self.put)}


def set_owners(shards: ShardTable, index: int, command: SetOwners) -> OwnersResult:
    """Put a new owner set in force, unless another one came first."""
    owners = tuple(sorted(dict.fromkeys(command.owners)))
    if command.epoch != shards.epoch + 1:
        return OwnersResult(
            index=index, epoch=shards.epoch, code="stale-epoch",
            message=f"epoch {command.epoch} does not follow {shards.epoch}",
            hint="decide again from the present owners",
        )  # fmt: skip
    if not 0 < len(owners) <= OWNERS_MAX:
        return OwnersResult(
            index=index, epoch=shards.epoch, code="bad-owners", message=f"{len(owners)} owners are not 1..{OWNERS_MAX}"
        )
    before = shards.owners
    shards.put((*shards.history, Assigned(command.epoch, command.time_ms, owners)))
    fields: dict[str, Any] = {
        "index": index, "epoch": command.epoch, "owners": list(owners), "by": command.decided_by,
        "moved_ppm": round(1_000_000 * moved_share(before, owners)), "why": command.why,
        "probes": [shards.owner(key) for key in PROBES],
    }  # fmt: skip
    return OwnersResult(index=index, epoch=command.epoch, owners=owners, changes=(("shard", fields),))
