"""Applying SetNodeLabels and SetNodeTaints, and what a taint does to work that is there already.

Owns: an operator's own labels and taints of a node, and evictions by NoExecute.
Must not know: placement.

A node's marks have two sources.  The agent's own come with its registration and change only with
that; an operator's stay over registrations and win over the agent's of the same key.  Either kind
changes the node's generation, so plans made before are refused.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from scheduler.commands import SetNodeLabels, SetNodeTaints
from scheduler.engine.marks import untolerated
from scheduler.model import LABELS_MAX, TAINTS_MAX, TaintEffect
from scheduler.state.books import Books
from scheduler.state.nodes import NODE_LABEL, Registration
from scheduler.state.results import Change, NodeResult
from scheduler.taints import spelled


def set_labels(books: Books, index: int, command: SetNodeLabels) -> NodeResult:
    """Give labels, or take given ones back."""
    entry = books.nodes.entry(command.node)
    if entry is None:
        return _unknown(index, command.node)
    given = {key: value for key, value in entry.given_labels.items() if key not in command.remove}
    given.update(command.put)
    for key in command.remove:
        if key in entry.labels and key not in entry.given_labels:
            return _refused(index, command.node, f"label {key} comes from the agent's configuration", "agent.labels")
    if NODE_LABEL in given:
        return _refused(index, command.node, f"{NODE_LABEL} is the node's own name", "another key")
    if len(given) > LABELS_MAX:
        return _refused(index, command.node, f"a node has at most {LABELS_MAX} given labels", "fewer labels")
    return _put(
        books,
        index,
        entry,
        replace(entry, given_labels=dict(sorted(given.items()))),
        "labelled" if command.put else "unlabelled",
    )


def set_taints(books: Books, index: int, command: SetNodeTaints) -> NodeResult:
    """Taint, or take given taints back; what does not tolerate a NoExecute taint is stopped."""
    entry = books.nodes.entry(command.node)
    if entry is None:
        return _unknown(index, command.node)
    given = {(taint.key, taint.effect.value): taint for taint in entry.given_taints}
    own = [(taint.key, taint.effect.value) for taint in entry.taints]
    for key, effect in command.remove:
        names = [name for name in given if _matches(name, key, effect)]
        if not names and any(_matches(name, key, effect) for name in own):
            return _refused(index, command.node, f"taint {key} comes from the agent's configuration", "agent.taints")
        for name in names:
            del given[name]
    given.update({(taint.key, taint.effect.value): taint for taint in command.put})
    if len(given) > TAINTS_MAX:
        return _refused(index, command.node, f"a node has at most {TAINTS_MAX} given taints", "fewer taints")
    taints = tuple(given[name] for name in sorted(given))
    return _put(books, index, entry, replace(entry, given_taints=taints), "tainted" if command.put else "untainted")


def evict(books: Books, slot: int, index: int) -> None:
    """Stop what does not tolerate the node's NoExecute taints."""
    taints = books.nodes.entries[slot].all_taints()
    if not any(taint.effect is TaintEffect.NO_EXECUTE for taint in taints):
        return
    leaving = []
    for row in sorted(books.nodes.rows[slot]):
        tolerations = books.job_of(row).spec.tolerations
        if untolerated(tolerations, taints, (TaintEffect.NO_EXECUTE,)):
            leaving.append(row)
    books.order_stop_rows(np.array(leaving, dtype=np.int64), index)
    for row in leaving:
        books.reconsider(books.job_of(row), books.attempts.ordinal[row])


def _put(books: Books, index: int, entry: Registration, changed: Registration, outcome: str) -> NodeResult:
    if changed == entry:
        return NodeResult(index=index, node=entry.node, generation=entry.generation, outcome="unchanged")
    slot = books.nodes.slot_of[entry.node]
    changed = replace(changed, generation=entry.generation + 1)
    books.nodes.put(slot, changed)
    books.nodes.touch(slot, index)
    evict(books, slot, index)
    return NodeResult(
        index=index, node=entry.node, generation=changed.generation, outcome=outcome, changes=(_event(changed, index),)
    )


def _event(entry: Registration, index: int) -> Change:
    return "node", {
        "do": "marks",
        "index": index,
        "node": entry.node,
        "incarnation": entry.incarnation,
        "labels": entry.all_labels(),
        "taints": [spelled(taint) for taint in entry.all_taints()],
        "state": entry.state.value,
    }


def _matches(name: tuple[str, str], key: str, effect: str) -> bool:
    return name[0] == key and effect in ("", name[1])


def _unknown(index: int, node: str) -> NodeResult:
    return NodeResult(
        index=index, node=node, code="no-such-node", message=f"there is no node {node}", hint="see `skerry node ls`"
    )


def _refused(index: int, node: str, message: str, instead: str) -> NodeResult:
    return NodeResult(index=index, node=node, code="bad-node-mark", message=message, hint=f"use {instead} instead")
