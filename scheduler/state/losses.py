"""Applying NodesLost and NodeSettled, and what a node's return means.

Owns: what becomes of the attempts on a lost node, and who may take a node's id.
Must not know: leases, clocks, sessions: that time has run out is the proposer's word (`scheduler.leases`).

A lost node keeps its slot and all its bookings; its attempts are *unknown*.  Those that end by
themselves when a lease runs out (`on_disconnect: stop`) wait to be placed elsewhere; `keep` ones wait
for their node or an operator.  A node comes back by registering; its attempts are then settled one by
one, by its own reports, and none is replaced any more: from that moment it may start them again.
"""

from __future__ import annotations

from msgspec.structs import replace

from scheduler.commands import Loss, NodeSettled, NodesLost, RegisterNode
from scheduler.lifecycle import Happening, next_state
from scheduler.model import AllocationState
from scheduler.state.allocations import NONE
from scheduler.state.books import Books
from scheduler.state.nodes import Registration
from scheduler.state.results import Change, LossResult, NodeResult


def lose(books: Books, index: int, command: NodesLost) -> LossResult:
    """Declare nodes lost; each is refused by itself if it registered anew meanwhile."""
    lost: list[str] = []
    refused: list[tuple[str, str]] = []
    changes: list[Change] = []
    for loss in command.losses:
        entry = books.nodes.entry(loss.node)
        code = _fault(entry, loss)
        if code or entry is None:
            refused.append((loss.node, code))
            continue
        lost.append(loss.node)
        changes.append(_lose(books, entry, index, command.declared_by, loss.silent_ms))
    return LossResult(index=index, lost=tuple(lost), refused=tuple(refused), changes=tuple(changes))


def settle(books: Books, index: int, command: NodeSettled) -> NodeResult:
    """The former incarnation's lease is over."""
    entry = books.nodes.entry(command.node)
    if entry is None or entry.registered_index != command.registered_index or entry.settled:
        code = "no-such-node" if entry is None else "node-changed"
        return NodeResult(index=index, node=command.node, code=code, message=f"{command.node} is not waiting for it")
    entry = replace(entry, settled=True, generation=entry.generation + 1)
    slot = books.nodes.slot_of[command.node]
    books.nodes.put(slot, entry)
    books.nodes.touch(slot, index)
    return NodeResult(index=index, node=command.node, generation=entry.generation, outcome="settled")


def in_use(books: Books, index: int, old: Registration, command: RegisterNode) -> NodeResult | None:
    """Refuse who would take the place of a node that may still be alive, until that one is lost.

    Another directory is another machine for all we know, and so is another boot: with `stop`
    workloads on the node, nothing shows that the old one does not run them until its lease is over.
    """
    if old.lost_index:
        return None
    other = bool(old.installation) and command.installation != old.installation
    rebooted = command.boot_id != old.boot_id
    if not other and not (rebooted and stop_grace_s(books, books.nodes.slot_of[old.node]) is not None):
        return None
    what = "from another directory" if other else "before its last boot"
    return NodeResult(
        index=index,
        node=old.node,
        generation=old.generation,
        code="node-in-use",
        message=f"an agent of node {old.node} {what} may still be alive",
        hint="it is admitted once that one is declared lost; if two agents run, give each a node id of its own",
    )


def came_back(old: Registration, command: RegisterNode) -> bool:
    """Whether a lost node is back with the same sandboxer on the same boot."""
    same = (command.incarnation, command.boot_id) == (old.incarnation, old.boot_id)
    return same and old.lost_index > 0


def is_settled(books: Books, slot: int, old: Registration, outcome: str) -> bool:
    """Whether no lease of the incarnation before can matter any more.

    It cannot when the node was lost meanwhile, or holds nothing that depends on a lease.
    """
    if outcome == "replaced" and not old.lost_index:
        return stop_grace_s(books, slot) is None
    return old.settled or old.lost_index > 0 or outcome == "rebooted"


def welcome(books: Books, slot: int) -> None:
    """A node that was lost is registered again: it has to tell of every attempt anew."""
    attempts = books.attempts
    for row in sorted(books.nodes.rows[slot]):
        attempts.sequence[row] = NONE
        attempts.lost_index[row] = 0
        if attempts.state(row) is AllocationState.UNKNOWN:
            books.reconsider(books.job_of(row), attempts.ordinal[row])


def unsure(books: Books, slot: int) -> tuple[tuple[str, int], ...]:
    """(allocation, epoch) of unknown attempts on the node."""
    attempts = books.attempts
    return tuple(
        (books.allocation_of(row), attempts.epoch[row])
        for row in sorted(books.nodes.rows[slot])
        if attempts.state(row) is AllocationState.UNKNOWN
    )


def stop_grace_s(books: Books, slot: int) -> int | None:
    """The largest stop grace of the node's live `stop` workloads, None without any."""
    fences = [books.attempts.fence[row] for row in books.nodes.rows[slot]]
    largest = max(fences, default=0)
    return largest - 1 if largest else None


def _fault(entry: Registration | None, loss: Loss) -> str:
    if entry is None:
        return "no-such-node"
    if entry.lost_index:
        return "node-lost"
    same = (entry.incarnation, entry.registered_index) == (loss.incarnation, loss.registered_index)
    return "" if same else "node-changed"


def _lose(books: Books, entry: Registration, index: int, by: str, silent_ms: int) -> Change:
    nodes, attempts = books.nodes, books.attempts
    slot = nodes.slot_of[entry.node]
    entry = replace(entry, lost_index=index, generation=entry.generation + 1)
    nodes.put(slot, entry)
    nodes.touch(slot, index)
    rows = sorted(nodes.rows[slot])
    for row in rows:
        after = next_state(attempts.state(row), Happening.NODE_LOST)
        assert after is not None, "only live attempts are on a node"
        attempts.set_state(row, after)
        attempts.sequence[row] = NONE
        attempts.lost_index[row] = index
        books.reconsider(books.job_of(row), attempts.ordinal[row])
    return "node", {
        "do": "lost", "index": index, "node": entry.node, "incarnation": entry.incarnation, "state": "lost",
        "by": by, "silent_ms": silent_ms, "unknown": len(rows),
        "capacity": {"cpu_millicores": entry.capacity.cpu_millicores, "memory_bytes": entry.capacity.memory_bytes,
                     "pids": entry.capacity.pids},
    }  # fmt: skip
