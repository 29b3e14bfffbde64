"""How much the workloads use, in the form the heartbeat carries.

Owns: shaping and adding up the sandboxer's numbers.  Pure.
Must not know: control groups or sockets; the sandboxer reads those.

The node's CPU counter never goes down: what ended attempts used stays in it, as a rate derived
from it would otherwise be negative at each exit.
"""

from __future__ import annotations

from collections.abc import Mapping

Usage = tuple[int, int, int]
"""(cpu_ns since the start, memory_bytes now, pids now)"""

WORKLOADS_MAX = 4096
"""Workloads named in one heartbeat; the node's total counts all."""


class UsageBook:
    """The last numbers of each allocation and the node's own total."""

    def __init__(self) -> None:
        self._last: dict[str, Usage] = {}
        self._ended_cpu_ns = 0

    def take(self, now: Mapping[str, Usage]) -> None:
        """Take a reading of all that lives; what is missing, or counts from less, has ended."""
        for allocation, (cpu_ns, _, _) in self._last.items():
            if allocation not in now or now[allocation][0] < cpu_ns:
                self._ended_cpu_ns += cpu_ns
        self._last = {allocation: now[allocation] for allocation in sorted(now)}

    def by_allocation(self) -> dict[str, Usage]:
        """Usage of each allocation, the first `WORKLOADS_MAX` by name."""
        return {name: self._last[name] for name in list(self._last)[:WORKLOADS_MAX]}

    def node(self) -> tuple[int, int]:
        """(cpu_ns, memory_bytes) of all workloads of the node, ended ones' CPU included."""
        cpu_ns = self._ended_cpu_ns + sum(usage[0] for usage in self._last.values())
        return cpu_ns, sum(usage[1] for usage in self._last.values())
