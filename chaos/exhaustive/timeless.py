"""A core as a value: copied, stripped of its clock, frozen into a fingerprint, seen in the mirror.

Owns: which of a core's fields make its state, and what time is reduced to.  Must not know: messages in flight, disks,
or what is explored.

Everything a core holds is part of its fingerprint unless it is named here; a field that is added to the
rules makes more states, never wrong ones.

**Time.**  Every timer may fire at any moment, late or early, so how far it is away says nothing: after each event the
clock is set back to zero and each timer to its full length.  What remains of time is whether the leader counts as
heard, and whether a commit waits to be announced.

**Symmetry.**  A member calls itself n1, the next one n2 and the one before it n3.  Then turning the ring changes no
member's state at all, and the mirror image only swaps n2 with n3.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any

from msgspec import Struct

from raft.core import Core, CoreConfig
from raft.effects import Role
from raft.messages import HardState
from raft.state import NEVER_NS

SELF, NEXT, BEFORE = "n1", "n2", "n3"
NAMES = (SELF, NEXT, BEFORE)
STORES = {name: f"{number:032x}" for number, name in enumerate(NAMES, 1)}

T_NS = 160
"""The election timeout; only its quarters and sixteenths must be whole numbers."""

_CONSTANT = frozenset({"config", "dice", "halves", "members", "peers", "configurations", "snapshot", "effects"})
"""Fields of `State` that do not change while nobody's membership does; `rest` looks after that."""

_SWAPPED = {NEXT: BEFORE, BEFORE: NEXT, STORES[NEXT]: STORES[BEFORE], STORES[BEFORE]: STORES[NEXT]}
_VALUES = (int, str, bytes, bool, type(None), Struct, Enum, tuple)

Frozen = Any
"""Nested tuples and frozen sets of plain values."""


class LongestDice:
    """No chance: each election timeout is the longest, so that stickiness ends before it."""

    def below(self, bound: int) -> int:
        """The largest number that can come."""
        return bound - 1

    def token(self, size_bytes: int) -> bytes:
        """Nobody founds a cluster here."""
        raise AssertionError("an identity was drawn")


# -- copies --------------------------------------------------------------------------------------


def clone(core: Core) -> Core:
    """A core that shares only unchangeable values with the other."""
    copied: Core = _clone(core, {})
    return copied


def _clone(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _VALUES):
        return value
    if isinstance(value, list):
        return [_clone(each, done) for each in value]
    if isinstance(value, dict):
        return {key: _clone(each, done) for key, each in value.items()}
    if isinstance(value, deque):
        return deque([_clone(each, done) for each in value])
    known = done.get(id(value))
    if known is not None:
        return known
    twin = done[id(value)] = value.__class__.__new__(value.__class__)
    for name in _fields(value):
        each = getattr(value, name)
        setattr(twin, name, each if name in _CONSTANT and name != "effects" else _clone(each, done))
    return twin


def _fields(value: Any) -> list[str]:
    return list(getattr(value, "__slots__", None) or value.__dict__)


# -- time ----------------------------------------------------------------------------------------


def rest(core: Core, config: CoreConfig) -> None:
    """Set the clock back to zero and every timer to its full length; number the writes in flight from 1."""
    state, replication = core._state, core._replication
    assert state.config is config, "every member is configured alike"
    assert state.configurations.index == 1, "membership does not change here"
    assert not replication.sequence, "nobody reads here"
    leads = state.role is Role.LEADER
    state.leader_heard_ns = 0 if state.hears_leader() else -NEVER_NS
    state.now_ns, state.election_deadline_ns = 0, 2 * T_NS
    announces = leads and replication.commit_deadline_ns != NEVER_NS
    replication.beat_deadline_ns = T_NS // 4 if leads else NEVER_NS
    replication.commit_deadline_ns = T_NS // 16 if announces else NEVER_NS
    replication._office_deadline_ns = T_NS if leads else NEVER_NS
    replication._cached = None
    if core._transfer.closes_log:
        core._transfer.deadline_ns = T_NS
    for progress in state.progress.values():
        progress.heard_ns = 0
    durability = state.durability
    done = durability._inflight[0].number - 1 if durability._inflight else durability._number
    durability._number -= done
    for write in durability._inflight:
        write.number -= done
        write.started_ns = 0


# -- fingerprints --------------------------------------------------------------------------------


def freeze(value: Any) -> Frozen:
    """The value of everything reachable, as something that can be compared and hashed."""
    return _freeze(value, set())


def _freeze(value: Any, done: set[int]) -> Frozen:
    if isinstance(value, HardState):
        return ("voted", value.term, value.voted_for)
    if isinstance(value, tuple):
        return tuple([_freeze(each, done) for each in value])
    if isinstance(value, _VALUES):
        return value
    if isinstance(value, list | deque):
        return tuple([_freeze(each, done) for each in value])
    if isinstance(value, dict):
        return frozenset([(key, _freeze(each, done)) for key, each in value.items()])
    if id(value) in done:
        return "seen"
    done.add(id(value))
    return tuple([_freeze(getattr(value, name), done) for name in _fields(value) if name not in _CONSTANT])


def mirrored(frozen: Frozen) -> Frozen:
    """The same with the two other members swapped."""
    if isinstance(frozen, str):
        return _SWAPPED.get(frozen, frozen)
    if isinstance(frozen, tuple):
        return tuple([mirrored(each) for each in frozen])
    if isinstance(frozen, frozenset):
        return frozenset([mirrored(each) for each in frozen])
    return frozen
