"""Preemption: which workloads would have to go to make room for one that is more important.

Owns: the fewest victims on a node, what a disruption budget says of them, and the choice between nodes.
Must not know: which filters decide whether the newcomer fits; that is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from msgspec import Struct

from scheduler.engine.selectors import matches
from scheduler.model import Requirement

PRIORITY_LOWEST: Final = -(1 << 31)


class Running(Struct, frozen=True):
    """A workload on a node, as one that may have to go."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    priority: int
    started: int = 0
    """When; later ones are the less important among equals."""


class Budget(Struct, frozen=True):
    """How many more of the workloads that `selector` means may be disrupted."""

    namespace: str
    selector: tuple[Requirement, ...]
    allowed: int
    disrupted: Collection[str] = ()
    """Those whose disruption is under way, and was counted."""


class Candidate(Struct, frozen=True):
    """A node on which the newcomer would fit without these victims, the most important first among their kind."""

    slot: int
    victims: tuple[int, ...]
    violations: int
    """Victims that their budget would not allow."""


def importance(workload: Running) -> tuple[int, int]:
    """Sorts the most important first: by priority, then by how long it runs."""
    return -workload.priority, workload.started


def over_budget(order: Sequence[int], running: Sequence[Running], budgets: Sequence[Budget]) -> list[int]:
    """Those of `order`, disrupted one after the other, that some budget would not allow."""
    left = [budget.allowed for budget in budgets]
    violating = []
    for each in order:
        over = False
        for number, budget in enumerate(budgets):
            if _counts(budget, running[each]):
                left[number] -= 1
                over = over or left[number] < 0
        if over:
            violating.append(each)
    return violating


def victims_on(
    slot: int,
    there: Sequence[int],
    running: Sequence[Running],
    priority: int,
    budgets: Sequence[Budget],
    fits: Callable[[Collection[int]], bool],
) -> Candidate | None:
    """The fewest workloads of one node that have to go, or None when that would not help.

    All that are less important are taken away, then as many as possible are spared: first
    those whose budget is used up, then the others, the more important ones first.

    Args:
        slot: the node.
        there: its workloads, as positions in `running`.
        running: all workloads.
        priority: of the newcomer.
        budgets: disruption budgets.
        fits: whether the newcomer fits there without the workloads given.
    """
    lower = sorted((each for each in there if running[each].priority < priority), key=lambda i: importance(running[i]))
    if not lower or not fits(lower):
        return None
    violating = dict.fromkeys(over_budget(lower, running, budgets))
    gone = dict.fromkeys(lower)
    victims = []
    violations = 0
    for each in (*violating, *(other for other in lower if other not in violating)):
        del gone[each]
        if not fits(tuple(gone)):
            gone[each] = None
            victims.append(each)
            violations += each in violating
    return Candidate(slot, tuple(victims), violations)


def best(candidates: Sequence[Candidate], running: Sequence[Running]) -> Candidate | None:
    """The candidate that hurts least; the first among equals.

    In this order: fewest budgets broken; the lowest of the most important victims; the least
    importance in sum; fewest victims; the most important ones started latest.
    """
    return min(candidates, key=lambda candidate: _harm(candidate, running), default=None)


def may_preempt(policy: str, priority: int, elsewhere: Collection[int]) -> bool:
    """Whether the newcomer may preempt: not by its policy Never, nor while victims it waits for still end.

    Args:
        policy: ``Never`` or anything else.
        priority: of the newcomer.
        elsewhere: priorities of what ends on the node that it was promised.
    """
    return policy != "Never" and not any(other < priority for other in elsewhere)


def _harm(candidate: Candidate, running: Sequence[Running]) -> tuple[int, int, int, int, int]:
    victims = [running[each] for each in candidate.victims]
    if not victims:
        return candidate.violations, PRIORITY_LOWEST - 1, 0, 0, 0
    highest = max(victim.priority for victim in victims)
    earliest = min(victim.started for victim in victims if victim.priority == highest)
    total = sum(victim.priority - PRIORITY_LOWEST for victim in victims)
    return candidate.violations, victims[0].priority, total, len(victims), -earliest


def _counts(budget: Budget, workload: Running) -> bool:
    """Whether disrupting the workload uses up some of the budget."""
    return (
        budget.namespace == workload.namespace
        and bool(workload.labels)
        and bool(budget.selector)
        and matches(budget.selector, workload.labels)
        and workload.name not in budget.disrupted
    )
