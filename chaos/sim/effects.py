"""A store outside the cluster that workloads write to, with the fencing token they were given.

Owns: what it refuses, and telling the trace.  Must not know: nodes, leases, or who should be writing.

It does what DESIGN.md §6 asks of whoever is written to: a token lower than one it has seen for the key is refused.
So a workload that runs on behind a partition or a paused machine has no effect once its replacement had one, and the
trace says so: an `effect` event for the first write under each token, and for every one that was refused.
"""

from __future__ import annotations

from typing import Any, Protocol

Token = tuple[int, int]
"""(cluster generation, log index)"""


class Emits(Protocol):
    """The part of a tracer that is used."""

    def emit(self, kind: str, /, **fields: Any) -> object:
        """Record one event."""
        ...


def token_of(text: str) -> Token | None:
    """A fencing token as workloads get it, ``generation:epoch``; None if it is none."""
    generation, colon, epoch = text.partition(":")
    if not (colon and generation.isdigit() and epoch.isdigit()):
        return None
    return int(generation), int(epoch)


class EffectStore:
    """One store; keys are allocations.  Counters for *sometimes* assertions."""

    def __init__(self, tracer: Emits) -> None:
        self._tracer = tracer
        self._highest: dict[str, Token] = {}
        self.accepted = 0
        self.refused = 0

    def write(self, key: str, token: str, node: str, pid: int) -> bool:
        """One write of process `pid` on `node`; whether it has an effect."""
        mine = token_of(token)
        seen = self._highest.get(key)
        accepted = mine is not None and (seen is None or mine >= seen)
        if accepted:
            self.accepted += 1
        else:
            self.refused += 1
        if mine is None or not accepted or mine != seen:
            self._tracer.emit("effect", key=key, token=token, accepted=accepted, node=node, pid=pid)
        if accepted and mine is not None:
            self._highest[key] = mine
        return accepted
