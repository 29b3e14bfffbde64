"""The nodes: capacity, what is booked on them, and what they have to stop.

Owns: node slots and their columns, booked ports, stop records, and the order in which
nodes changed.  Must not know: jobs, or how commands are decided.

A node keeps its slot for ever.  `used` columns count every attempt on the node that has not
been reported over; capacity may shrink below them, which only keeps new work away.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from scheduler.model import Capacity, NodeState
from scheduler.state.columns import Table

NODES_MAX: Final = 100_000
_COLUMNS: Final = ("cpu", "memory", "pids", "used_cpu", "used_memory", "used_pids", "generation", "ready", "hash")


class Registration(Struct, frozen=True):
    """What is committed about a node."""

    node: str
    incarnation: str
    boot_id: str
    capacity: Capacity
    isolation: str
    isolation_why: str
    address: str
    state: NodeState
    generation: int
    registered_index: int


def identity_hash(text: str) -> int:
    """63 bits of a name, for ties; the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class NodeTable:
    """All nodes, by slot."""

    def __init__(self) -> None:
        self.table = Table(_COLUMNS)
        self.slot_of: dict[str, int] = {}
        self.entries: list[Registration] = []
        self.names: list[str] = []
        self.rows: list[dict[int, None]] = []
        """Rows of live attempts by slot."""
        self.stops: list[dict[tuple[str, int], int]] = []
        """(allocation, epoch) → index of the stop record for work that no attempt of this state stands for, by slot."""
        self.port_holders: dict[int, dict[int, int]] = {}
        """port → slot → row."""
        self._changed: OrderedDict[int, int] = OrderedDict()
        columns = self.table.columns
        self._cpu, self._memory, self._pids = columns["cpu"], columns["memory"], columns["pids"]
        self._used = columns["used_cpu"], columns["used_memory"], columns["used_pids"]

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, node: str) -> Registration | None:
        """The committed registration of `node`."""
        slot = self.slot_of.get(node)
        return None if slot is None else self.entries[slot]

    def add(self, registration: Registration) -> int:
        """A new slot for a new node."""
        slot = self.table.new_row()
        assert slot == len(self.entries), "node slots are never reused"
        self.slot_of[registration.node] = slot
        self.entries.append(registration)
        self.names.append(registration.node)
        self.rows.append({})
        self.stops.append({})
        self.table.columns["hash"][slot] = identity_hash(registration.node)
        self.put(slot, registration)
        return slot

    def put(self, slot: int, registration: Registration) -> None:
        """Replace what is committed about the node of `slot`."""
        assert registration.node == self.entries[slot].node, "a slot belongs to one node for ever"
        self.entries[slot] = registration
        capacity = registration.capacity
        self._cpu[slot], self._memory[slot] = capacity.cpu_millicores, capacity.memory_bytes
        self._pids[slot] = capacity.pids
        self.table.columns["generation"][slot] = registration.generation
        self.table.columns["ready"][slot] = int(registration.state is NodeState.READY)
        self.touch(slot, registration.registered_index)

    def set_state(self, slot: int, state: NodeState, index: int) -> Registration:
        """Cordon or uncordon; a new generation, so that plans made before are refused."""
        entry = self.entries[slot]
        changed = replace(entry, state=state, generation=entry.generation + 1)
        self.put(slot, changed)
        self.touch(slot, index)
        return changed

    def used(self, slot: int) -> Capacity:
        """What is booked."""
        cpu, memory, pids = self._used
        return Capacity(cpu[slot], memory[slot], pids[slot])

    def book(self, slot: int, row: int, need: Capacity, ports: tuple[int, ...]) -> None:
        """Book an attempt."""
        self._add(slot, need, 1)
        self.rows[slot][row] = None
        for port in ports:
            holders = self.port_holders.setdefault(port, {})
            assert slot not in holders, "two attempts hold one port"
            holders[slot] = row

    def unbook(self, slot: int, row: int, need: Capacity, ports: tuple[int, ...]) -> None:
        """Free what `book` booked."""
        self._add(slot, need, -1)
        del self.rows[slot][row]
        for port in ports:
            holders = self.port_holders[port]
            assert holders.pop(slot) == row, "a port is freed by its holder"
            if not holders:
                del self.port_holders[port]

    def _add(self, slot: int, need: Capacity, sign: int) -> None:
        for column, amount in zip(self._used, (need.cpu_millicores, need.memory_bytes, need.pids), strict=True):
            after = column[slot] + sign * amount
            assert after >= 0, "booked resources cannot be negative"
            column[slot] = after

    def touch(self, slot: int, index: int) -> None:
        """The node's desired set or registration changed at `index`."""
        self._changed[slot] = index
        self._changed.move_to_end(slot)

    def changed_since(self, index: int) -> list[str]:
        """Nodes that changed at a later index, oldest change first; O(changed)."""
        found = []
        for slot in reversed(self._changed):
            if self._changed[slot] <= index:
                break
            found.append(self.entries[slot].node)
        found.reverse()
        return found

    def changed_at(self, slot: int) -> int:
        """Index of the node's last change."""
        return self._changed.get(slot, 0)
