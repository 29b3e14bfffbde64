"""Role selectors: names for nodes that are known only when a fault fires.

Owns: their grammar and meaning.  Must not know: how roles are found out.

A selector is one or more parts joined by ``+``: ``leader``, ``follower`` (one, chosen by the
seed), ``followers``, ``replicas``, ``minority`` (the leader and followers, fewer than half),
``majority`` (all replicas that `minority` leaves), ``rest`` (replicas that no other selector of
the same fault names), ``replica:n1``, ``agent:a1``, ``agent:2`` (the second), ``agent:*``, and
a number of further followers: ``leader+1``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from msgspec import Struct

from chaos.errors import ScenarioInvalid, SelectorUnresolved

_WORDS = ("leader", "follower", "followers", "replicas", "minority", "majority", "rest")
_NAMED = re.compile(r"(replica|agent):([a-z][a-z0-9-]{0,30}|[1-9][0-9]{0,3}|\*)")
_MORE = re.compile(r"[1-9]")


class Roles(Struct, frozen=True):
    """Who is what, at the moment of firing."""

    leader: str | None
    replicas: tuple[str, ...]
    agents: tuple[str, ...]

    @property
    def followers(self) -> tuple[str, ...]:
        """All replicas but the leader."""
        return tuple(replica for replica in self.replicas if replica != self.leader)


def check_selector(selector: str, where: str) -> None:
    """Raise ScenarioInvalid unless the selector is well formed."""
    for number, part in enumerate(selector.split("+")):
        if part in _WORDS or _NAMED.fullmatch(part) or (number and _MORE.fullmatch(part)):
            continue
        raise ScenarioInvalid(
            f"{where}: {selector!r} selects nothing",
            hint=f"use {', '.join(_WORDS)}, replica:ID, agent:ID, agent:*, or leader+1",
        )


def resolve(selector: str, roles: Roles, dice: Random, *, taken: Sequence[str] = ()) -> tuple[str, ...]:
    """The nodes a selector means now.

    Args:
        selector: checked by `check_selector`.
        roles: of this moment.
        dice: chooses among equals.
        taken: nodes that other selectors of the same fault named, for ``rest``.

    Raises:
        SelectorUnresolved: nobody holds that role now.
    """
    found: list[str] = []
    for part in selector.split("+"):
        found += [node for node in _part(part, roles, dice, found, taken) if node not in found]
    if not found:
        raise SelectorUnresolved(f"{selector!r} means no node now", hint="has the cluster a leader, and such nodes?")
    return tuple(found)


def _part(part: str, roles: Roles, dice: Random, found: Sequence[str], taken: Sequence[str]) -> Sequence[str]:
    if _MORE.fullmatch(part):
        others = [node for node in roles.followers if node not in found]
        if len(others) < int(part):
            raise SelectorUnresolved(f"there are no {part} further followers")
        return dice.sample(others, int(part))
    named = _NAMED.fullmatch(part)
    if named is not None:
        return _named(named.group(1), named.group(2), roles)
    if part in ("leader", "follower", "followers", "minority", "majority") and roles.leader is None:
        raise SelectorUnresolved("there is no leader now")
    leader = roles.leader or ""
    minority = [leader, *roles.followers[: max(0, (len(roles.replicas) - 1) // 2 - 1)]]
    meanings: dict[str, Sequence[str]] = {
        "leader": (leader,),
        "followers": roles.followers,
        "replicas": roles.replicas,
        "minority": minority,
        "majority": [node for node in roles.replicas if node not in minority],
        "rest": [node for node in roles.replicas if node not in taken],
    }
    if part == "follower":
        return [dice.choice(roles.followers)] if roles.followers else []
    return meanings[part]


def _named(kind: str, name: str, roles: Roles) -> Sequence[str]:
    members = roles.replicas if kind == "replica" else roles.agents
    if name == "*":
        return members
    if name.isdigit():
        if int(name) > len(members):
            raise SelectorUnresolved(f"there is no {kind} number {name}")
        return (members[int(name) - 1],)
    if name not in members:
        raise SelectorUnresolved(f"there is no {kind} {name}", hint=f"there are: {', '.join(members)}")
    return (name,)


def resolve_groups(groups: Sequence[str], roles: Roles, dice: Random) -> list[tuple[str, ...]]:
    """All groups of a partition; ``rest`` is resolved last, and no node is in two groups."""
    resolved: dict[int, tuple[str, ...]] = {}
    order = sorted(range(len(groups)), key=lambda number: "rest" in groups[number].split("+"))
    for number in order:
        taken = [node for nodes in resolved.values() for node in nodes]
        resolved[number] = resolve(groups[number], roles, dice, taken=taken)
    seen: dict[str, int] = {}
    for number, nodes in resolved.items():
        for node in nodes:
            if seen.setdefault(node, number) != number:
                raise SelectorUnresolved(f"{node} is in two groups of the partition")
    return [resolved[number] for number in range(len(groups))]
