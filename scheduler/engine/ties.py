"""Ties: which of the equally good nodes, the same on every machine.

Owns: the seeded hash.  Must not know: what a score means.

The seed is the allocation's id, so that equal nodes share the load instead of the first one
taking it all.  The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable
pseudorandom number generators", 2014), computed modulo 2⁶⁴.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.engine.world import Int64s

_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB


def seed_of(allocation: str) -> int:
    """64 bits of the allocation's id."""
    return int.from_bytes(blake2b(allocation.encode(), digest_size=8).digest(), "little")


def mix(hashes: Int64s, seed: int) -> NDArray[np.uint64]:
    """A well-mixed number for each node hash under `seed`."""
    value = hashes.astype(np.uint64) ^ np.uint64(seed)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_SECOND)
    return value ^ (value >> np.uint64(31))


def pick(candidates: Int64s, hashes: Int64s, allocation: str) -> int:
    """The candidate slot with the smallest mixed hash; the lowest slot if even these agree."""
    assert len(candidates), "there is something to pick from"
    if len(candidates) == 1:
        return int(candidates[0])
    return int(candidates[int(np.argmin(mix(hashes[candidates], seed_of(allocation))))])
