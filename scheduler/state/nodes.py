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

from scheduler.engine.selectors import Topology
from scheduler.model import Capacity, NodeState, Taint
from scheduler.state.columns import Table
from scheduler.state.marks import Marks
from scheduler.state.paged import Objects, Section
from scheduler.state.stop_records import StopRecords

NODES_MAX: Final = 100_000
_COLUMNS: Final = ("cpu", "memory", "pids", "used_cpu", "used_memory", "used_pids", "generation", "ready", "hash")


NODE_LABEL: Final = "skerry/node"


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
    labels: dict[str, str] = {}
    """From the agent's configuration."""
    taints: tuple[Taint, ...] = ()
    given_labels: dict[str, str] = {}
    """By an operator; they outlive registrations and win over the agent's own."""
    given_taints: tuple[Taint, ...] = ()
    installation: str = ""
    """Random id of the agent's directory; two directories never work as one node at a time."""
    lost_index: int = 0
    """Index at which the node was declared lost; 0 = it is not."""
    settled: bool = True
    """False while the lease of the incarnation before may still last; no work is placed then."""

    @property
    def takes_work(self) -> bool:
        """Whether placement may use it."""
        return self.state is NodeState.READY and not self.lost_index and self.settled

    @property
    def shown_state(self) -> str:
        """One word for people."""
        return "lost" if self.lost_index else self.state.value

    def all_labels(self) -> dict[str, str]:
        """What selectors see: the node's own name too, under `NODE_LABEL`."""
        return {**self.labels, **self.given_labels, NODE_LABEL: self.node}

    def all_taints(self) -> tuple[Taint, ...]:
        """What placement sees, by key and effect; an operator's stands for the agent's of the same."""
        by_key = {(taint.key, taint.effect): taint for taint in (*self.taints, *self.given_taints)}
        return tuple(by_key[key] for key in sorted(by_key))


def identity_hash(text: str) -> int:
    """63 bits of a name, for ties; the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class NodeTable:
    """All nodes, by slot."""

    def __init__(self) -> None:
        self.table = Table(_COLUMNS)
        self.slot_of: dict[str, int] = {}
        self.entries: Objects[Registration] = Objects(Registration)
        self.names: list[str] = []
        self.rows: list[dict[int, None]] = []
        """Rows of live attempts by slot."""
        self.stops = StopRecords()
        self.port_holders: dict[int, dict[int, int]] = {}
        """port → slot → row."""
        self.marks = Marks()
        self._topology: Topology | None = None
        self._topology_of = (0, 0)
        """Changes of marks and number of nodes that it was worked out for."""
        self._changed: OrderedDict[int, int] = OrderedDict()
        columns = self.table.columns
        self._cpu, self._memory, self._pids = columns["cpu"], columns["memory"], columns["pids"]
        self._used = columns["used_cpu"], columns["used_memory"], columns["used_pids"]

    def __len__(self) -> int:
        return len(self.names)

    def topology(self) -> Topology:
        """Domains of the nodes by label; kept until a label or the number of nodes changes."""
        if self._topology is None or (self.marks.changes, len(self)) != self._topology_of:
            self._topology = Topology(self.marks.labels, len(self))
            self._topology_of = (self.marks.changes, len(self))
        return self._topology

    def entry(self, node: str) -> Registration | None:
        """The committed registration of `node`."""
        slot = self.slot_of.get(node)
        return None if slot is None else self.entries[slot]

    def add(self, registration: Registration) -> int:
        """A new slot for a new node."""
        slot = self.table.new_row()
        assert slot == len(self.names), "node slots are never reused"
        self.entries[slot] = registration
        self._appear(slot, registration)
        self.table.columns["hash"][slot] = identity_hash(registration.node)
        self.put(slot, registration)
        return slot

    def _appear(self, slot: int, registration: Registration) -> None:
        """Begin what is derived of a node."""
        self.slot_of[registration.node] = slot
        self.names.append(registration.node)
        self.rows.append({})

    def read_back(self, index: int) -> None:
        """After loading: derive what is derived; every node counts as changed at `index`."""
        for slot, registration in self.entries.items():
            if slot != len(self.names):
                raise ValueError(f"node slot {len(self.names)} is missing")
            self._appear(slot, registration)
            self.marks.put(slot, registration)
            self.touch(slot, index)

    def sections(self) -> dict[str, Section]:
        """What of this is replicated."""
        return {**self.table.sections("nodes"), "nodes/entries": self.entries, "nodes/stops": self.stops.pages}

    def put(self, slot: int, registration: Registration) -> None:
        """Replace what is committed about the node of `slot`."""
        assert registration.node == self.entries[slot].node, "a slot belongs to one node for ever"
        self.entries[slot] = registration
        self.marks.put(slot, registration)
        capacity = registration.capacity
        self._cpu[slot], self._memory[slot] = capacity.cpu_millicores, capacity.memory_bytes
        self._pids[slot] = capacity.pids
        self.table.columns["generation"][slot] = registration.generation
        self.table.columns["ready"][slot] = int(registration.takes_work)
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
