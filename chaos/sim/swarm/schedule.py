"""The schedule of faults of a seed.

Owns: how many faults of which kinds make a schedule, and the rules that keep it fair.
Must not know: how a fault is carried out (`injector`).

A fault is a lease: it is in force from `at_ms` for `for_ms`.  A schedule is a list of them and
nothing else, so that it can be shrunk, written down and replayed.  Roles ("leader") are
resolved when the fault fires.

Fair means: synced bytes are lost (wipe, rot) on fewer than half of the replicas in a whole run,
because no consensus survives more.
"""

from __future__ import annotations

from typing import Final

from chaos.sim.swarm.kinds import KINDS, LOSING, UNBOUNDED, Fault
from chaos.sim.swarm.profile import Profile, stream

FAULTS_LEAST: Final = 3
FAULTS_MOST: Final = 9


def draw_faults(profile: Profile) -> tuple[Fault, ...]:
    """The schedule of the profile's seed: a subset of the kinds, each perhaps several times, by time."""
    dice = stream(profile.seed, "faults")
    kinds = dice.sample(sorted(KINDS), dice.randint(2, 6))
    count = dice.randint(FAULTS_LEAST, FAULTS_MOST)
    drawn = [KINDS[name] for name in kinds[:count]]
    drawn += [KINDS[dice.choice(kinds)] for _ in range(count - len(drawn))]
    faults = [kind.draw(dice, profile) for kind in drawn]
    return fair(tuple(sorted(faults, key=lambda fault: (fault.at_ms, fault.kind))), profile)


def fair(faults: tuple[Fault, ...], profile: Profile) -> tuple[Fault, ...]:
    """Without the faults that would lose synced bytes of half of the replicas or more, or of one twice."""
    allowed = (len(profile.replicas) - 1) // 2
    victims: list[str] = []
    kept = []
    for fault in faults:
        if fault.kind in LOSING:
            if fault.nodes[0] in victims or len(victims) >= allowed:
                fault = Fault("power", fault.at_ms, fault.for_ms, fault.nodes)
            else:
                victims.append(fault.nodes[0])
        kept.append(fault)
    return tuple(kept)


def losers(faults: tuple[Fault, ...]) -> tuple[str, ...]:
    """The replicas that lose synced bytes in this schedule, in order."""
    return tuple(fault.nodes[0] for fault in faults if fault.kind in LOSING)


def beyond_bounds(faults: tuple[Fault, ...]) -> bool:
    """Whether the schedule breaks an assumption on which "one process at a time" rests."""
    return any(fault.kind in UNBOUNDED for fault in faults)
