"""Which cgroup arrangement this machine has, found by using it.

Owns: reading the mounts and choosing a backend.  Must not know: what a backend's files are.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from agents.sandboxer.cgroups.base import Backend, CgroupError
from agents.sandboxer.cgroups.fake import Fake
from agents.sandboxer.cgroups.hybrid import Hybrid
from agents.sandboxer.cgroups.v1 import CONTROLLERS, V1
from agents.sandboxer.cgroups.v2 import V2

KINDS: Final = ("auto", "v1", "hybrid", "v2", "none")
FAKE_DIRECTORY: Final = "groups"
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where cgroups are mounted: v1 by controller, and v2 ("" = nowhere)."""

    v1: dict[str, str]
    v2: str


def tree_name(root: str | None, cluster: str, node: str) -> str:
    """The node's tree, relative to a hierarchy's mount point."""
    return os.path.normpath(os.path.join((root or "").strip("/"), f"skerry-{cluster}-{node}"))


def parse_mounts(mountinfo: str) -> Mounts:
    """Find the cgroup mounts in the text of /proc/self/mountinfo (proc(5))."""
    v1: dict[str, str] = {}
    v2 = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if kinds[0] == "cgroup2":
            v2 = v2 or point
        elif kinds[0] == "cgroup":
            for option in kinds[2].split(","):
                if option in CONTROLLERS:
                    v1.setdefault(option, point)
    return Mounts(v1, v2)


def read_mounts() -> Mounts:
    """The cgroup mounts of this process."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mounts(file.read())


def choose(kind: str, tree: str, directory: str) -> tuple[Backend, str]:
    """A prepared backend of `kind` ("auto": the best that works), and why none better is used ("").

    Raises:
        CgroupError: a kind asked for by name cannot be used.
    """
    mounts = read_mounts()
    refused: list[str] = []
    for name in ("v2", "hybrid", "v1") if kind == "auto" else (kind,):
        if name == "none":
            break
        try:
            backend = _make(name, mounts, tree)
            backend.prepare()
        except CgroupError as error:
            if kind != "auto":
                raise
            refused.append(f"{name}: {error}")
        else:
            return backend, ""
    fake = Fake(os.path.join(directory, FAKE_DIRECTORY))
    fake.prepare()
    return fake, "; ".join(refused) or "cgroups are turned off by configuration"


def _make(name: str, mounts: Mounts, tree: str) -> Backend:
    if name in ("v2", "hybrid") and not mounts.v2:
        raise CgroupError("no v2 hierarchy is mounted")
    if name == "v2":
        return V2(mounts.v2, tree)
    if name == "hybrid":
        return Hybrid(mounts.v1, mounts.v2, tree)
    return V1(mounts.v1, tree)
