"""Deliberate bugs for the live system: proof that the checkers see what they claim to see.

Owns: the list of breaks, and putting one in force at the start of a process.
Must not know: checkers, scenarios, traces; and they must not know this package (an import contract).

A break replaces exactly one production function of one module, by name, before that module's
users are imported.  Nothing in production knows of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from msgspec import Struct

from chaos.breaks.absence_stops import stops_of
from chaos.breaks.no_fencing import deadline_ns
from chaos.errors import BreakUnknown
from cluster.trace import PROCESS_META

log = structlog.get_logger(__name__)


class Break(Struct, frozen=True):
    """One deliberate bug.

    `role`: the kind of process it lives in.  `checker`: the invariant that must find it.
    """

    name: str
    lesson: str
    role: str
    module: str
    function: str
    replacement: Callable[..., Any]
    checker: str


_ALL = (
    Break(
        "no-fencing",
        "the sandboxer's deadline never comes, so a workload runs on after its lease",
        "agent",
        "agents.lease",
        "deadline_ns",
        deadline_ns,
        "at-most-one-process",
    ),
    Break(
        "absence-stops",
        "what a desired set does not name is stopped, as if absence were an order",
        "agent",
        "agents.reconcile",
        "stops_of",
        stops_of,
        "absence-never-stops",
    ),
)

BREAKS: dict[str, Break] = {each.name: each for each in _ALL}


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


def break_process(names: Iterable[str], role: str) -> list[Break]:
    """Put the breaks that concern a process of this role in force; loud in its log and in its trace's meta.

    Raises:
        BreakUnknown: no such break, or none of this role.
    """
    wanted = find_breaks(names)
    for each in wanted:
        if each.role != role:
            raise BreakUnknown(f"the break {each.name} is one of {each.role}s, not of {role}s")
        module = importlib.import_module(each.module)
        assert callable(getattr(module, each.function, None)), f"{each.module} has no function {each.function}"
        setattr(module, each.function, each.replacement)
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
            module = importlib.import_module(each.module)
            replaced.append((module, each.function, getattr(module, each.function)))
            setattr(module, each.function, each.replacement)
        yield
    finally:
        for module, function, original in reversed(replaced):
            setattr(module, function, original)
