"""What holds workloads apart on this machine, found by trying each part, and said in words.

Owns: the level and its reasons; nothing that is missing is left unsaid.  Must not know: how any part works.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from agents.sandboxer import capabilities, linux, namespaces, network, seccomp, user_namespace, users
from agents.sandboxer.birth import Means
from agents.sandboxer.cgroups import detect
from agents.sandboxer.cgroups.base import Backend

FULL: Final = "{} + pid,mount,uts,ipc,user namespaces + seccomp + network {}"
DEGRADED: Final = "degraded"
SYS_ADMIN: Final = 21


@dataclass(frozen=True, slots=True)
class Isolation:
    """What can be had here.  `level` is `DEGRADED` if anything that confines a workload is missing."""

    backend: Backend
    means: Means
    no_bridge: str
    """Why workloads cannot have a bridge network; empty if they can."""
    level: str
    why: str
    users: users.Users | None
    """Of workloads with a user namespace; None: they have none, or an ordinary user's."""


def find(cgroups: str, tree: str, directory: str, numbers: str = "") -> Isolation:
    """Try everything.  `numbers`: the users that workloads may be (`users.parse_range`), or `users.OFF`."""
    backend, lacking = detect.choose(cgroups, tree, directory)
    ordinary = not linux.effective_capabilities() >> SYS_ADMIN & 1
    no_namespaces = namespaces.work(user_namespace=ordinary)
    own_users, no_users = (None, "") if ordinary else _users(numbers, tree, directory, no_namespaces)
    no_drop, no_filter = capabilities.works(), seccomp.works()
    why = []
    if lacking:
        why.append(f"no cgroups ({lacking}): memory is bounded by RLIMIT_AS, CPU and pids are not bounded")
    if no_namespaces:
        why.append(f"no namespaces ({no_namespaces}): workloads see each other's processes and the node's network")
    if no_users:
        why.append(f"no user namespace ({no_users}): workloads are user 0 on this machine's files")
    if no_drop:
        why.append(f"capabilities stay ({no_drop})")
    if no_filter:
        why.append(f"no system call filter ({no_filter})")
    no_bridge = _no_bridge(ordinary, no_namespaces)
    level = DEGRADED if why else FULL.format(backend.kind, network.HOST if no_bridge else network.BRIDGE)
    if no_bridge:
        why.append(f"no bridge network ({no_bridge}): jobs that name no network share the node's")
    means = Means(
        namespaces=not no_namespaces,
        user_namespace=ordinary and not no_namespaces,
        capabilities=not no_drop,
        filter=None if no_filter else seccomp.filter_here(),
    )
    return Isolation(backend, means, no_bridge, level, "; ".join(why), own_users)


def _users(numbers: str, tree: str, directory: str, no_namespaces: str) -> tuple[users.Users | None, str]:
    """The users of root's workloads, or why they cannot have any."""
    if no_namespaces:
        return None, "it comes after the others"
    if numbers == users.OFF:
        return None, "turned off by configuration"
    try:
        own = users.claim(users.parse_range(numbers), f"{tree} {directory}")
    except OSError as error:
        return None, str(error)
    failed = user_namespace.works(own.first, directory)
    if failed:
        own.close()
    return (None, failed) if failed else (own, "")


def _no_bridge(ordinary: bool, no_namespaces: str) -> str:
    if ordinary:
        return f"user id {os.geteuid()} may not connect networks"
    return no_namespaces or network.bridge_works()
