"""Applying RegisterNode and SetNodeState.

Owns: what a new incarnation, a reboot or other capacity means for a node's attempts.
Must not know: sessions, or whether a node is reachable.

  same boot, same incarnation, same attributes   nothing changes, plans stay valid;
  same boot, new incarnation                     the sandboxer was replaced: attempts stay until its
                                                 agent reports each one, sequences start anew;
  new boot                                       nothing of the old boot can run: its attempts are lost
                                                 and their capacity is free, its stop records are moot;
  lost, or from another directory                see `scheduler.state.losses`.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from scheduler.commands import RegisterNode, SetNodeState
from scheduler.model import NodeState
from scheduler.state import losses
from scheduler.state.allocations import NONE
from scheduler.state.books import LOST_EXIT, Books
from scheduler.state.marking import evict
from scheduler.state.nodes import NODES_MAX, Registration
from scheduler.state.results import Change, NodeResult


def register(books: Books, index: int, command: RegisterNode) -> NodeResult:
    """A node (re)joined."""
    nodes = books.nodes
    old = nodes.entry(command.node)
    if old is None:
        return _join(books, index, command)
    refused = losses.in_use(books, index, old, command)
    if refused is not None:
        return refused
    outcome = "returned" if losses.came_back(old, command) else _outcome(old, command)
    if outcome == "unchanged":
        return NodeResult(index=index, node=command.node, generation=old.generation, outcome=outcome)
    slot = nodes.slot_of[command.node]
    changes: list[Change] = []
    if outcome == "rebooted":
        changes = _lose_all(books, slot, index, command.time_ms)
    elif outcome == "replaced":
        for row in nodes.rows[slot]:
            books.attempts.sequence[row] = NONE
    entry = _registration(command, old.state, old.generation + 1, index)
    settled = losses.is_settled(books, slot, old, outcome)
    entry = replace(entry, given_labels=old.given_labels, given_taints=old.given_taints, settled=settled)
    nodes.put(slot, entry)
    if old.lost_index:
        losses.welcome(books, slot)
    evict(books, slot, index)
    changes.append(_event("register", entry, index))
    return NodeResult(
        index=index, node=command.node, generation=entry.generation, outcome=outcome, changes=tuple(changes)
    )


def set_state(books: Books, index: int, command: SetNodeState) -> NodeResult:
    """Cordon or uncordon."""
    slot = books.nodes.slot_of.get(command.node)
    if slot is None:
        return NodeResult(
            index=index,
            node=command.node,
            code="no-such-node",
            message=f"there is no node {command.node}",
            hint="list nodes with: node ls",
        )
    if command.state not in (NodeState.READY, NodeState.CORDONED):
        return NodeResult(
            index=index,
            node=command.node,
            code="bad-node-state",
            message=f"{command.state!r} is no state of a node",
            hint=f"use one of: {', '.join(NodeState)}",
        )
    entry = books.nodes.entries[slot]
    wanted = NodeState(command.state)
    if entry.state is wanted:
        return NodeResult(index=index, node=command.node, generation=entry.generation, outcome="unchanged")
    entry = books.nodes.set_state(slot, wanted, index)
    return NodeResult(
        index=index,
        node=command.node,
        generation=entry.generation,
        outcome=wanted.value,
        changes=(_event("state", entry, index),),
    )


def _join(books: Books, index: int, command: RegisterNode) -> NodeResult:
    if len(books.nodes) >= NODES_MAX:
        return NodeResult(
            index=index,
            node=command.node,
            code="too-many-nodes",
            message=f"{NODES_MAX} nodes are registered",
            hint="start another cluster",
        )
    entry = _registration(command, NodeState.READY, 1, index)
    books.nodes.add(entry)
    return NodeResult(
        index=index,
        node=command.node,
        generation=1,
        outcome="registered",
        changes=(_event("register", entry, index),),
    )


def _outcome(old: Registration, command: RegisterNode) -> str:
    if command.boot_id != old.boot_id:
        return "rebooted"
    if command.incarnation != old.incarnation:
        return "replaced"
    fields = ("capacity", "isolation", "isolation_why", "address", "labels", "taints", "installation")
    same = all(getattr(command, field) == getattr(old, field) for field in fields)
    return "unchanged" if same else "updated"


def _registration(command: RegisterNode, state: NodeState, generation: int, index: int) -> Registration:
    return Registration(
        node=command.node,
        incarnation=command.incarnation,
        boot_id=command.boot_id,
        capacity=command.capacity,
        isolation=command.isolation,
        isolation_why=command.isolation_why,
        address=command.address,
        state=state,
        generation=generation,
        registered_index=index,
        labels=command.labels,
        taints=command.taints,
        installation=command.installation,
    )


def _lose_all(books: Books, slot: int, index: int, time_ms: int) -> list[Change]:
    rows = sorted(books.nodes.rows[slot])  # the order decides which rows are used next: the same after a restart
    changes = [books.end(row, LOST_EXIT, index=index, time_ms=time_ms) for row in rows]
    assert not books.nodes.rows[slot], "a rebooted node holds nothing"
    books.nodes.stops.clear(slot)
    return changes


def _event(do: str, entry: Registration, index: int) -> Change:
    fields: dict[str, Any] = {
        "do": do,
        "index": index,
        "node": entry.node,
        "incarnation": entry.incarnation,
        "boot": entry.boot_id,
        "installation": entry.installation,
        "capacity": {
            "cpu_millicores": entry.capacity.cpu_millicores,
            "memory_bytes": entry.capacity.memory_bytes,
            "pids": entry.capacity.pids,
        },
        "state": entry.shown_state,
    }
    return "node", fields
