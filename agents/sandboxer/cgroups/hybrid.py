"""Hybrid: v1 controllers for limits and usage, the empty v2 hierarchy for killing.

Owns: what v2 adds to v1.  Must not know: v2 controllers; there are none here.
"""

from __future__ import annotations

import os

from agents.sandboxer.cgroups import base
from agents.sandboxer.cgroups.base import CgroupError
from agents.sandboxer.cgroups.v1 import V1


class Hybrid(V1):
    """v1 with `cgroup.kill`: one write kills the group, also while it forks."""

    kind = "cgroup-hybrid"

    def __init__(self, mounts: dict[str, str], unified: str, tree: str) -> None:
        super().__init__(mounts, tree)
        self._unified = os.path.join(unified, tree)
        self._distinct = [*self._distinct, self._unified]

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        super().prepare()
        probe = f"{self._unified}/probe@0"
        os.mkdir(probe)
        try:
            if not os.path.exists(f"{probe}/cgroup.kill"):
                raise CgroupError("the v2 hierarchy has no cgroup.kill (Linux < 5.14)")
        finally:
            os.rmdir(probe)

    def kill(self, name: str) -> None:
        """See `Backend.kill`."""
        try:
            base.write(f"{self._unified}/{name}/cgroup.kill", "1")
        except FileNotFoundError:
            return
        if set(self.members(name)) - set(base.processes(f"{self._unified}/{name}")):
            super().kill(name)  # joined v1 only: killed between two joins
