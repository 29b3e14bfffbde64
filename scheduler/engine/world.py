"""The nodes as placement sees them: arrays over node slots.

Owns: the shape of what placement reads and the request it answers.
Must not know: the replicated state that fills it, or commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from scheduler.engine.groups import Group
from scheduler.engine.neighbours import Newcomer
from scheduler.engine.selectors import Topology
from scheduler.model import NO_RULES, Capacity, Rules, Taint, Toleration

Int64s = NDArray[np.int64]
Flags = NDArray[np.bool_]

RESOURCES: Final = ("cpu", "memory", "pids")
"""Order of the `capacity` and `used` arrays: millicores, bytes, count."""


NOBODY: Final = Newcomer("", {})


class World(Struct, frozen=True):
    """All nodes; index = node slot.  Arrays are the holder's own and are not written to."""

    names: Sequence[str]
    capacity: tuple[Int64s, ...]
    used: tuple[Int64s, ...]
    generation: Int64s
    ready: Flags
    present: Flags
    """False: no live session, by the leader's volatile knowledge."""
    hashes: Int64s
    ports: Mapping[int, Mapping[int, int]]
    """port → slots on which it is taken; the holder's own: valid until its next change."""
    labels: Mapping[tuple[str, str], Mapping[int, object]] = {}
    """(key, value) → slots with that label; the holder's own, as `ports`."""
    taints: Mapping[Taint, Mapping[int, object]] = {}
    """taint → slots that have it."""
    groups: Mapping[str, Group] | None = None
    """job → its live attempts as rules between workloads see them; None while no job has such rules."""
    topology: Topology | None = None
    """Of `labels`, kept by the holder until the next change; None: to be worked out."""
    own: Flags | None = None
    """Nodes on the decider's own arcs, looked at first; None: all nodes alike."""

    def __len__(self) -> int:
        return len(self.names)


class PlacementRequest(Struct, frozen=True):
    """One allocation to place."""

    allocation: str
    need: Capacity
    ports: tuple[int, ...] = ()
    peers: Mapping[int, int] = {}
    """Node slot → live attempts of the same job there."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels that the node must have."""
    tolerations: tuple[Toleration, ...] = ()
    rules: Rules = NO_RULES
    newcomer: Newcomer = NOBODY
    """The allocation as rules between workloads see it."""


def needs(need: Capacity) -> tuple[int, int, int]:
    """Amounts in the order of `RESOURCES`."""
    return need.cpu_millicores, need.memory_bytes, need.pids
