"""Host ports: which nodes have the asked ones free.

Owns: when two ports clash.  Must not know: who holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from scheduler.engine.selectors import Flags, Holders, flags_of

ANYWHERE: Final = "0.0.0.0"  # noqa: S104 (the wildcard as such; nothing is bound to it)
"""Every address of the node."""


class HostPort(Struct, frozen=True):
    """A port of a node, at one of its addresses or at all of them."""

    number: int
    protocol: str = "TCP"
    address: str = ANYWHERE


def clash(one: HostPort, other: HostPort) -> bool:
    """Whether the two cannot be open on one node at a time."""
    if (one.number, one.protocol) != (other.number, other.protocol):
        return False
    return ANYWHERE in (one.address, other.address) or one.address == other.address


def free(wanted: Sequence[HostPort], held: Mapping[HostPort, Holders], count: int) -> Flags:
    """Which of `count` nodes hold no port that clashes with a wanted one."""
    open_ = np.ones(count, dtype=bool)
    for taken, holders in held.items():
        if any(clash(port, taken) for port in wanted):
            open_ &= ~flags_of(holders, count)
    return open_
