"""Node affinity: nodes by their labels and names, required and preferred.

Owns: how terms are put together: expressions of a term all hold, one of the terms does.
Must not know: where labels come from, or which weight affinity has beside other scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.engine.selectors import NODE_NAME, Flags, Int64s, LabelIndex, first_fault, nodes_accepted
from scheduler.model import NodeTerm, Requirement, WeightedNodeTerm


def named(names: Sequence[str], wanted: str) -> Flags:
    """Which nodes have the name that is asked for; all of them when none is."""
    return np.array([not wanted or name == wanted for name in names], dtype=bool)


def in_term(term: NodeTerm, names: Sequence[str], labels: LabelIndex) -> Flags:
    """The nodes of one term; none for an empty term or one that cannot be understood."""
    count = len(names)
    if not (term.match_expressions or term.match_fields) or first_fault(term.match_expressions):
        return np.zeros(count, dtype=bool)
    chosen = np.ones(count, dtype=bool)
    for requirement in term.match_expressions:
        chosen &= nodes_accepted(requirement, labels, count)
    for field in term.match_fields:
        chosen &= _with_field(field, names)
    return chosen


def required(terms: Sequence[NodeTerm] | None, names: Sequence[str], labels: LabelIndex) -> Flags:
    """Which nodes are in any of the terms; None asks for nothing, an empty list admits no node."""
    if terms is None:
        return np.ones(len(names), dtype=bool)
    chosen = np.zeros(len(names), dtype=bool)
    for term in terms:
        chosen |= in_term(term, names, labels)
    return chosen


def preferred(terms: Sequence[WeightedNodeTerm], names: Sequence[str], labels: LabelIndex) -> Int64s:
    """The sum of the weights of the terms that each node is in."""
    total = np.zeros(len(names), dtype=np.int64)
    for weighted in terms:
        total += weighted.weight * in_term(weighted.preference, names, labels)
    return total


def fault(terms: Sequence[WeightedNodeTerm]) -> str:
    """Why preferred terms cannot be understood, "" when they can."""
    return next((why for each in terms if (why := first_fault(each.preference.match_expressions))), "")


def _with_field(requirement: Requirement, names: Sequence[str]) -> Flags:
    """Nodes whose name is, or is not, the one given; other questions about fields have no answer."""
    if requirement.key != NODE_NAME or len(requirement.values) != 1 or requirement.operator not in ("In", "NotIn"):
        return np.zeros(len(names), dtype=bool)
    same = np.array([name == requirement.values[0] for name in names], dtype=bool)
    return same if requirement.operator == "In" else ~same
