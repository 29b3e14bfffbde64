"""Image locality: nodes that have what a workload runs from need not fetch it.

Owns: what an image that is there is worth.  Must not know: containers or registries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from scheduler.engine.normal import SCALE
from scheduler.engine.selectors import Int64s

WORTHLESS_BYTES: Final = 23 << 20
"""Images below are fetched in no time, so having them says nothing."""
ENOUGH_BYTES: Final = 1000 << 20
"""Of each container; more than this says no more."""


def full_name(image: str) -> str:
    """With the tag ``latest`` where none is given."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"


def locality(images: Sequence[str], had: Mapping[str, Mapping[int, int]], count: int, unit: int = SCALE) -> Int64s:
    """How much of what is needed each of `count` nodes has already.

    Each image counts in proportion to how many nodes have it, lest one node with a rare image draws all.

    Args:
        images: one for each container.
        had: full name → node → bytes.
        count: of the nodes.
        unit: the best score.
    """
    total = np.zeros(count, dtype=np.int64)
    for image in images:
        on = had.get(full_name(image), {})
        for slot, size in on.items():
            total[slot] += size * len(on) // count
    most = max(ENOUGH_BYTES * len(images), WORTHLESS_BYTES + 1)
    return (np.clip(total, WORTHLESS_BYTES, most) - WORTHLESS_BYTES) * unit // (most - WORTHLESS_BYTES)
