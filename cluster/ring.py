"""The consistent-hash ring: which owner a key belongs to.

Owns: the hash H: text → [0, 2³²), virtual nodes, the clockwise walk, and its vector form.
Must not know: what keys are, who is alive, or when owners change (`cluster.shards`).

Every owner stands on the ring at `VIRTUAL_NODES` points.  A key belongs to the owner of the first point at
or after H(key), and past the highest point to the lowest (Karger et al., "Consistent hashing
and random trees", 1997).  So an owner that joins takes 1/(k+1) of the keys and takes them from the
others alone, and one that leaves gives its keys to the others and moves no other key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

SPACE: Final = 1 << 32
VIRTUAL_NODES: Final = 1024
"""Points an owner: the shares then differ from the mean by about 1/√1024 = 3 %."""
_POINTS_A_HASH: Final = 16

Int64s = NDArray[np.int64]


def position(key: str) -> int:
    """H(key): a point in [0, 2³²), the same on every machine."""
    return int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "big")


def points_of(owner: str, count: int = VIRTUAL_NODES) -> list[int]:
    """The points of an owner's virtual nodes; the first n of them do not depend on `count`."""
    points: list[int] = []
    for block in range(-(-count // _POINTS_A_HASH)):
        digest = blake2b(f"{owner}\0{block}".encode(), digest_size=4 * _POINTS_A_HASH, person=b"skerry-ring").digest()
        points.extend(int.from_bytes(digest[at : at + 4], "big") for at in range(0, len(digest), 4))
    return points[:count]


class Ring:
    """A fixed set of owners on the ring; never changes.

    Attributes:
        owners: their names, sorted, each once.
        points: all virtual nodes in clockwise order, shape (owners · virtual nodes,), int64.
    """

    def __init__(self, owners: Iterable[str], virtual_nodes: int = VIRTUAL_NODES) -> None:
        assert virtual_nodes > 0, "an owner needs a point"
        self.owners = tuple(sorted(dict.fromkeys(owners)))
        pairs = sorted(
            (point, number) for number, owner in enumerate(self.owners) for point in points_of(owner, virtual_nodes)
        )
        self._points = [point for point, _ in pairs]
        self._numbers = [number for _, number in pairs]
        self.points: Int64s = np.array(self._points, dtype=np.int64)
        self._holder: Int64s = np.array(self._numbers, dtype=np.int64)

    def owner(self, key: str) -> str | None:
        """Whose the key is; None on a ring without owners."""
        return self.owner_at(position(key))

    def owner_at(self, place: int) -> str | None:
        """The owner of the first point at or after `place`, wrapping; None on an empty ring."""
        if not self._points:
            return None
        at = bisect_left(self._points, place)
        return self.owners[self._numbers[at if at < len(self._points) else 0]]

    def numbers_at(self, places: Int64s) -> Int64s:
        """For each place the number of its owner in `owners`; -1 everywhere on an empty ring."""
        if not len(self.points):
            return np.full(len(places), -1, dtype=np.int64)
        at = np.searchsorted(self.points, places, side="left")
        return self._holder[at % len(self.points)]

    def shares(self) -> dict[str, float]:
        """Each owner's part of the ring, 0..1."""
        arcs = np.diff(self.points, prepend=self.points[-1:] - SPACE)
        return {owner: float(arcs[self._holder == number].sum()) / SPACE for number, owner in enumerate(self.owners)}


def positions(keys: Iterable[str]) -> Int64s:
    """H of many keys, in their order."""
    return np.fromiter((position(key) for key in keys), dtype=np.int64)
