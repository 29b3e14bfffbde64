"""When arcs change owners.

Owns: the history of owner sets, which arcs two sets differ in, and the rule how often an arc may
move.  Must not know: how it is agreed upon, who counts replicas as live, or what lies on an arc.

The owners at an epoch are a set of replicas; the ring gives each arc to one of them.  An arc moves at
most once in `MOVE_PAUSE_MS`: a replica that flaps would otherwise take its arcs away and bring
them back with each beat, and every move makes plans stale.  A change of which only a
part may happen now waits as a whole; meanwhile the leader looks after what a dead owner left.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from cluster.ring import SPACE, Int64s, Ring

MOVE_PAUSE_MS: Final = 10_000
HISTORY_MAX: Final = 8
"""Owner sets remembered; what was planned before the oldest of them counts as planned for other owners."""


Change = tuple[tuple[str, ...], tuple[str, ...]]
"""Owner sets (before, after)."""


class Assigned(Struct, frozen=True, array_like=True):
    """The owners from an epoch on; `time_ms` is the leader's Unix milliseconds, for pacing alone."""

    epoch: int
    time_ms: int
    owners: tuple[str, ...]


@lru_cache(maxsize=4 * HISTORY_MAX)
def ring_of(owners: tuple[str, ...]) -> Ring:
    """The ring of an owner set, made once."""
    return Ring(owners)


def next_owners(history: Sequence[Assigned], live: Sequence[str], now_ms: int) -> tuple[str, ...] | None:
    """The owner set to agree upon now, or None when the present one stands.

    Args:
        history: owner sets so far, oldest first; empty before the first.
        live: replicas that can own arcs now.
        now_ms: the caller's Unix milliseconds.
    """
    wanted = tuple(sorted(dict.fromkeys(live)))
    present = history[-1].owners if history else ()
    if not wanted or wanted == present:
        return None
    for before, after in recent_changes(history, now_ms):
        if arcs_in_both((before, after), (present, wanted)):
            return None
    return wanted


def recent_changes(history: Sequence[Assigned], now_ms: int) -> list[Change]:
    """The changes of the last `MOVE_PAUSE_MS`; that nobody owned an arc before is no change.

    A clock that was set back by more than the pause counts as time gone by: pacing must not
    hold arcs for as long as clocks may differ.
    """
    return [
        (older.owners, newer.owners)
        for older, newer in pairwise(history)
        if older.owners and abs(now_ms - newer.time_ms) < MOVE_PAUSE_MS
    ]


@lru_cache(maxsize=HISTORY_MAX)
def arcs_in_both(first: Change, second: Change) -> bool:
    """Whether some arc moves in both changes; asked again and again while a move waits, worked out once."""
    ends = _ends([*first, *second])
    return bool((_moves(*first, ends) & _moves(*second, ends)).any())


@lru_cache(maxsize=HISTORY_MAX)
def moved_share(before: tuple[str, ...], after: tuple[str, ...]) -> float:
    """How much of the ring changes its owner, 0..1."""
    ends = _ends([before, after])
    if not len(ends):
        return 0.0
    arcs = np.diff(ends, prepend=ends[-1:] - SPACE)
    return float(arcs[_moves(before, after, ends)].sum()) / SPACE


def _ends(owner_sets: Sequence[tuple[str, ...]]) -> Int64s:
    """The ends of the finest arcs: between two of them no set's ring has a point."""
    return np.unique(np.concatenate([ring_of(owners).points for owners in owner_sets]))


def _moves(before: tuple[str, ...], after: tuple[str, ...], ends: Int64s) -> NDArray[np.bool_]:
    """Per arc, named by its end, whether its owner differs."""
    names = sorted(dict.fromkeys((*before, *after)))
    old, new = (_owner_numbers(owners, names, ends) for owners in (before, after))
    return np.not_equal(old, new)


def _owner_numbers(owners: tuple[str, ...], names: list[str], ends: Int64s) -> Int64s:
    ring = ring_of(owners)
    found = ring.numbers_at(ends)
    if not ring.owners:
        return found
    return np.array([names.index(owner) for owner in ring.owners], dtype=np.int64)[found]
