"""Configurations: who is in one, how one becomes the next, and which one counts (§6; dissertation §4).

Owns: the changes as functions from a configuration to the next, and the history of configurations in a log.
Must not know: why a change is made (membership), messages, or what is committed.

Invariants: a replica uses the *latest* configuration in its log, committed or not (§6); when the entry is truncated,
the one before counts again.  A change of voters goes through a joint configuration, in which the majorities of the
old and of the new voters must both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec.structs import replace

from raft.messages import CONFIGURATION, RETIRED_MAX, Configuration, Entry, decode_configuration
from raft.quorum import Halves


class Standing(StrEnum):
    """What a configuration says of one store."""

    EMPTY = "empty"
    """There is no configuration yet."""
    OUTSIDE = "outside"
    """It names another store for this replica, or none: neither vote nor acknowledgement counts."""
    LEARNER = "learner"
    VOTER = "voter"


class Impossible(ValueError):
    """A change that the configuration at hand does not allow."""


def standing(configuration: Configuration | None, replica: str, store: str) -> Standing:
    """What `configuration` says of `store` under the name `replica`."""
    if configuration is None:
        return Standing.EMPTY
    if store in (configuration.voters.get(replica), configuration.outgoing.get(replica)):
        return Standing.VOTER
    return Standing.LEARNER if configuration.learners.get(replica) == store else Standing.OUTSIDE


def halves(configuration: Configuration) -> Halves:
    """The voters' stores that must agree by majority: one set, two while joint."""
    incoming = tuple(configuration.voters[replica] for replica in sorted(configuration.voters))
    outgoing = tuple(configuration.outgoing[replica] for replica in sorted(configuration.outgoing))
    return (incoming, outgoing) if outgoing else (incoming,)


def members(configuration: Configuration) -> dict[str, str]:
    """Replica id → the store that is spoken to under it, sorted; a replaced store gives way to its successor."""
    found = {**configuration.outgoing, **configuration.learners, **configuration.voters}
    return {replica: found[replica] for replica in sorted(found)}


# -- changes -------------------------------------------------------------------------------------


def enter_joint(configuration: Configuration, voters: dict[str, str], learners: dict[str, str]) -> Configuration:
    """The joint configuration on the way to these voters and learners (§6); stores left out are retired.

    Raises Impossible.
    """
    if configuration.outgoing:
        raise Impossible("the configuration is already joint")
    if not voters:
        raise Impossible("a cluster without voters decides nothing")
    if both := [replica for replica in sorted(learners) if replica in voters]:
        raise Impossible(f"{', '.join(both)}: voter and learner at once")
    if waiting := [
        replica for replica, store in sorted(learners.items()) if configuration.voters.get(replica) == store
    ]:
        raise Impossible(f"{', '.join(waiting)}: the same store cannot leave the voters and learn in one step")
    return replace(
        configuration,
        voters=voters,
        learners=learners,
        outgoing=configuration.voters,
        retired=_retired(configuration, voters, learners),
    )


def leave_joint(configuration: Configuration) -> Configuration:
    """The new voters alone.  Raises Impossible."""
    if not configuration.outgoing:
        raise Impossible("the configuration is not joint")
    return replace(configuration, outgoing={})


def replace_store(configuration: Configuration, replica: str, store: str) -> Configuration:
    """On the way to `store` as a learner under the name `replica`; the store it had is out for good.

    A replica that was a learner itself is no voter's loss: its configuration needs no joint step.
    """
    voters = {name: voter for name, voter in configuration.voters.items() if name != replica}
    learners = {**configuration.learners, replica: store}
    if replica in configuration.voters:
        return enter_joint(configuration, voters, learners)
    if configuration.outgoing:
        raise Impossible("one change at a time")
    return replace(configuration, learners=learners, retired=_retired(configuration, voters, learners))


def promote(configuration: Configuration, replica: str) -> Configuration:
    """On the way to the learner `replica` as a voter."""
    learners = {name: store for name, store in configuration.learners.items() if name != replica}
    return enter_joint(configuration, {**configuration.voters, replica: configuration.learners[replica]}, learners)


def _retired(before: Configuration, voters: dict[str, str], learners: dict[str, str]) -> tuple[str, ...]:
    """The stores replaced so far, with those that the next configuration leaves out."""
    kept = [*voters.values(), *learners.values()]
    gone = [store for store in members(before).values() if store not in kept]
    return (*before.retired, *gone)[-RETIRED_MAX:]


# -- history -------------------------------------------------------------------------------------


class Configurations:
    """The configurations of one log, oldest first, each with the index of its entry."""

    def __init__(self) -> None:
        self._held: list[tuple[int, Configuration]] = []

    @property
    def current(self) -> Configuration | None:
        """The latest one, which counts; None before entry 1."""
        return self._held[-1][1] if self._held else None

    @property
    def index(self) -> int:
        """Index of the latest one's entry, 0 before entry 1."""
        return self._held[-1][0] if self._held else 0

    def at(self, index: int) -> tuple[int, Configuration] | None:
        """The configuration in effect in a log that ends at `index`, with the index of its entry."""
        return next((held for held in reversed(self._held) if held[0] <= index), None)

    def appended(self, entries: Sequence[Entry]) -> bool:
        """Entries entered the log; returns whether the configuration changed.  Raises msgspec.MsgspecError."""
        found = [(entry.index, decode_configuration(entry.data)) for entry in entries if entry.kind == CONFIGURATION]
        self._held += found
        return bool(found)

    def truncated(self, from_index: int) -> bool:
        """The log lost its entries from `from_index` on; returns whether an earlier configuration counts again."""
        before = len(self._held)
        while self._held and self._held[-1][0] >= from_index:
            self._held.pop()
        return len(self._held) != before

    def rebase(self, index: int, configuration: Configuration) -> None:
        """The log up to now begins with a snapshot, in which `configuration`, of entry `index`, was in effect."""
        self._held = [(index, configuration), *[held for held in self._held if held[0] > index]]
