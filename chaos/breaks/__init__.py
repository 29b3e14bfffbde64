"""Deliberate bugs for the live system: proof that the checkers see what they claim to see.

Owns: putting a break in force at the start of a process, or around a simulated world.
Must not know: checkers, scenarios, traces; and they must not know this package (an import contract).

A break replaces exactly one production function, of a module or of a class, by name.  Nothing in production knows of
it.
A function of a module is called through that module, or from within it, or a break of it would not be seen.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from chaos.breaks.zoo import ALL, Break
from chaos.errors import BreakUnknown
from cluster.trace import PROCESS_META

LIVE_ROLES = ("replica", "agent")
"""Processes that can be started with a break; a sandboxer loads nothing of ours but itself."""

log = structlog.get_logger(__name__)


BREAKS: dict[str, Break] = {each.name: each for each in ALL}


def find_breaks(names: Iterable[str]) -> list[Break]:
    """The breaks of these names.

    Raises:
        BreakUnknown: there is no break of that name.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in BREAKS:
            raise BreakUnknown(f"there is no break {name!r}", hint=f"there are: {', '.join(BREAKS)}")
        found.append(BREAKS[name])
    return found


def place_of(each: Break) -> tuple[Any, str]:
    """(module or class, name) of what a break replaces."""
    owner: Any = importlib.import_module(each.module)
    *classes, name = each.function.split(".")
    for inner in classes:
        owner = getattr(owner, inner)
    assert callable(getattr(owner, name, None)), f"{each.module} has no function {each.function}"
    return owner, name


def break_process(names: Iterable[str], role: str) -> list[Break]:
    """Put the breaks that concern a process of this role in force; loud in its log and in its trace's meta.

    Raises:
        BreakUnknown: no such break, or none of this role.
    """
    wanted = find_breaks(names)
    for each in wanted:
        if each.role != role:
            raise BreakUnknown(f"the break {each.name} is one of {each.role}s, not of {role}s")
        owner, name = place_of(each)
        setattr(owner, name, each.replacement)
        log.warning("DELIBERATELY BROKEN", broken=each.name, replaces=f"{each.module}.{each.function}", why=each.lesson)
    if wanted:
        PROCESS_META["breaks"] = [each.name for each in wanted]
    return wanted


@contextmanager
def in_force(names: Iterable[str]) -> Iterator[None]:
    """Put breaks of any role in force, and take them back at the end: for simulated processes, which share one.

    Raises:
        BreakUnknown: no such break.
    """
    wanted = find_breaks(names)
    replaced = []
    try:
        for each in wanted:
            owner, name = place_of(each)
            replaced.append((owner, name, getattr(owner, name)))
            setattr(owner, name, each.replacement)
        yield
    finally:
        for owner, name, original in reversed(replaced):
            setattr(owner, name, original)
