"""Every kind of fault there is, and how one of it is drawn.

Owns: the table of kinds: name, what it does in words, whom it hits for how long.
Must not know: how many of them make a schedule (`schedule`), or how one is carried out (`injector`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from msgspec import Struct

from chaos.sim.swarm.profile import Profile

SANDBOXER_STEPS: Final = 5
"""Of `chaos.sim.syscalls.STEPS`."""
QUIET_MS: Final = 2_000
"""Before the first fault: the cluster is founded and has a leader."""


class Fault(Struct, frozen=True, omit_defaults=True):
    """One fault with its lease.

    `nodes` and `others` are machine names, or ``leader``; which of them matter depends on the kind.
    `amount` is in the unit that the kind says (microseconds, permille, ppm, milliseconds, bytes a second).
    """

    kind: str
    at_ms: int
    for_ms: int
    nodes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    amount: int = 0


class Kind(Struct, frozen=True):
    """A kind of fault: what it does, in words for the documentation, and how it is drawn."""

    name: str
    group: str
    does: str
    draw: Callable[[Random, Profile], Fault]


# --- drawing ----------------------------------------------------------------------------------


def _window(dice: Random, profile: Profile, least_ms: int, most_ms: int) -> tuple[int, int]:
    """(start, length) within phase one."""
    length = dice.randint(least_ms, most_ms)
    return dice.randint(QUIET_MS, max(QUIET_MS + 1, profile.safety_ms - length)), length


def _long(dice: Random, profile: Profile) -> tuple[int, int]:
    """Long enough for leases to run out and others to be elected."""
    longest = min(profile.safety_ms // 2, 3 * profile.lease.duration_ms)
    return _window(dice, profile, 2 * profile.raft.election_timeout_ms, longest)


def _replica(dice: Random, profile: Profile) -> str:
    """The leader as often as any other."""
    return dice.choice(("leader", *profile.replica_names))


def _named(dice: Random, profile: Profile) -> str:
    return dice.choice(profile.replica_names)


def _agent(dice: Random, profile: Profile) -> str:
    return dice.choice(profile.agent_names)


def _any(dice: Random, profile: Profile) -> str:
    return _replica(dice, profile) if dice.random() < 0.6 else _agent(dice, profile)


def _halves(dice: Random, profile: Profile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Everybody on one of two sides, each with a replica."""
    replicas = list(profile.replica_names)
    dice.shuffle(replicas)
    cut = dice.randint(1, len(replicas) - 1)
    left, right = replicas[:cut], replicas[cut:]
    for agent in profile.agent_names:
        (left if dice.random() < 0.5 else right).append(agent)
    return tuple(sorted(left)), tuple(sorted(right))


def _partition(kind: str) -> Callable[[Random, Profile], Fault]:
    def draw(dice: Random, profile: Profile) -> Fault:
        left, right = _halves(dice, profile)
        return Fault(kind, *_long(dice, profile), left, right)

    return draw


def _bridge(dice: Random, profile: Profile) -> Fault:
    """Two halves of the replicas that only one of them joins; `others` holds the second half."""
    replicas = list(profile.replica_names)
    dice.shuffle(replicas)
    middle = 1 + (len(replicas) - 1) // 2
    return Fault("bridge", *_long(dice, profile), tuple(replicas[1:middle]), tuple(replicas[middle:]))


def _ring(dice: Random, profile: Profile) -> Fault:
    """Every replica hears its two neighbours of this order only: each sees a majority of five, no two the same."""
    order = list(profile.replica_names)
    dice.shuffle(order)
    return Fault("ring", *_long(dice, profile), tuple(order))


def _flap(dice: Random, profile: Profile) -> Fault:
    left, right = _halves(dice, profile)
    period = dice.randint(profile.raft.election_timeout_ms // 2, 3 * profile.raft.election_timeout_ms)
    return Fault("flap", *_long(dice, profile), left, right, period)


def _on(kind: str, who: Callable[[Random, Profile], str]) -> Callable[[Random, Profile], Fault]:
    """A fault of one machine for long."""

    def draw(dice: Random, profile: Profile) -> Fault:
        return Fault(kind, *_long(dice, profile), (who(dice, profile),))

    return draw


def _cut(dice: Random, profile: Profile) -> Fault:
    everybody = (*profile.replica_names, *profile.agent_names)
    source = dice.choice(everybody)
    targets = [each for each in everybody if each != source]
    return Fault(
        "cut", *_long(dice, profile), (source,), tuple(sorted(dice.sample(targets, dice.randint(1, len(targets)))))
    )


def _link(kind: str, amounts: Callable[[Random, Profile], int]) -> Callable[[Random, Profile], Fault]:
    """A fault of the quality of some machines' links, in both directions."""

    def draw(dice: Random, profile: Profile) -> Fault:
        everybody = (*profile.replica_names, *profile.agent_names)
        return Fault(
            kind,
            *_long(dice, profile),
            tuple(sorted(dice.sample(everybody, dice.randint(1, len(everybody) // 2)))),
            amount=amounts(dice, profile),
        )

    return draw


def _brief(kind: str, who: Callable[[Random, Profile], str]) -> Callable[[Random, Profile], Fault]:
    """A machine or process that is away for a moment up to a few leases."""

    def draw(dice: Random, profile: Profile) -> Fault:
        longest = 2 * profile.lease.duration_ms
        return Fault(kind, *_window(dice, profile, 50, longest), (who(dice, profile),))

    return draw


def _power_all(dice: Random, profile: Profile) -> Fault:
    return Fault("power-all", *_window(dice, profile, 50, 2_000), profile.replica_names)


def _tear(dice: Random, profile: Profile) -> Fault:
    """It takes until the next such step, and lasts no time."""
    at, length = _window(dice, profile, 50, 2_000)
    return Fault("tear-sandboxer", at, length, (_agent(dice, profile),), amount=dice.randrange(SANDBOXER_STEPS))


def _journal(dice: Random, profile: Profile) -> Fault:
    return Fault("failing-journal", *_window(dice, profile, 50, 2_000), (_agent(dice, profile),))


def _stall(dice: Random, profile: Profile) -> Fault:
    """Long enough for the node to be declared lost and its work to begin elsewhere."""
    lease_ms = profile.lease.duration_ms
    return Fault("stall", *_window(dice, profile, lease_ms + 3_500, 2 * lease_ms + 5_000), (_agent(dice, profile),))


def _disk(kind: str, amounts: Callable[[Random], int]) -> Callable[[Random, Profile], Fault]:
    def draw(dice: Random, profile: Profile) -> Fault:
        return Fault(kind, *_long(dice, profile), (_named(dice, profile),), amount=amounts(dice))

    return draw


def _clock_step(dice: Random, profile: Profile) -> Fault:
    at, length = _window(dice, profile, 500, 8_000)
    return Fault(
        "clock-step", at, length, (_any_named(dice, profile),), amount=dice.choice((-1, 1)) * dice.randint(10, 60_000)
    )


def _clock_drift(dice: Random, profile: Profile) -> Fault:
    at, length = _window(dice, profile, 2_000, 10_000)
    return Fault(
        "clock-drift",
        at,
        length,
        (_any_named(dice, profile),),
        amount=dice.choice((-1, 1)) * dice.randint(50_000, 400_000),
    )


def _any_named(dice: Random, profile: Profile) -> str:
    return dice.choice((*profile.replica_names, *profile.agent_names))


def _herd(dice: Random, profile: Profile) -> Fault:
    """All agents lose all replicas at once, and find them again at once."""
    return Fault("herd", *_window(dice, profile, 200, profile.lease.duration_ms), profile.agent_names)


_ALL: Final = (
    Kind("partition", "network", "two halves hear nothing of each other", _partition("partition")),
    Kind(
        "one-way-partition",
        "network",
        "the second half hears nothing of the first, and is heard",
        _partition("one-way-partition"),
    ),
    Kind("bridge", "network", "two halves of the replicas that one replica alone joins", _bridge),
    Kind("ring", "network", "each replica hears its two neighbours only: majorities that differ", _ring),
    Kind("flap", "network", "a partition that comes and goes", _flap),
    Kind("isolate", "network", "one machine is cut off from all others, both ways", _on("isolate", _any)),
    Kind("deaf", "network", "one machine hears nobody, and is heard", _on("deaf", _any)),
    Kind("mute", "network", "one machine is heard by nobody, and hears", _on("mute", _any)),
    Kind("cut", "network", "one-way cuts from one machine to some others", _cut),
    Kind(
        "delay",
        "network",
        "latency and jitter on some machines' links (µs)",
        _link("delay", lambda d, p: d.randint(5_000, 150_000)),
    ),
    Kind(
        "loss",
        "network",
        "segments are lost on some machines' links (permille)",
        _link("loss", lambda d, p: d.randint(50, 400)),
    ),
    Kind(
        "throttle",
        "network",
        "little bandwidth on some machines' links (bytes a second)",
        _link("throttle", lambda d, p: d.randint(8_000, 100_000)),
    ),
    Kind(
        "reset",
        "network",
        "connections of a machine are reset, over and over (period, ms)",
        _link("reset", lambda d, p: d.randint(300, 2_000)),
    ),
    Kind("refuse", "network", "a machine refuses new connections and resets those it has", _on("refuse", _any)),
    Kind("herd", "network", "all agents lose all replicas, and come back together", _herd),
    Kind("kill", "process", "a replica's process is killed, and started again at the end", _brief("kill", _replica)),
    Kind("kill-agent", "process", "an agent's process is killed; its sandboxer goes on", _brief("kill-agent", _agent)),
    Kind(
        "kill-sandboxer", "process", "a sandboxer is killed; its agent starts another", _brief("kill-sandboxer", _agent)
    ),
    Kind(
        "kill-node",
        "process",
        "agent and sandboxer of a node are killed at once; an agent comes back at the end",
        _brief("kill-node", _agent),
    ),
    Kind("tear-sandboxer", "process", "a sandboxer is killed in the middle of a step (its number)", _tear),
    Kind(
        "restart",
        "process",
        "a replica is told to end, hands over if it leads, and is started again at the end",
        _brief("restart", _replica),
    ),
    Kind("upgrade", "process", "an agent is told to end, and another is started at the end", _brief("upgrade", _agent)),
    Kind("pause", "process", "a machine stands still, its clock does not", _brief("pause", _any)),
    Kind("stall", "process", "a node's machine stands still for longer than its lease; then its work goes on", _stall),
    Kind("power", "machine", "a replica's machine loses power and all unsynced bytes", _brief("power", _replica)),
    Kind(
        "power-agent", "machine", "a node's machine loses power: its workloads are gone", _brief("power-agent", _agent)
    ),
    Kind("power-all", "machine", "all replicas lose power at once", _power_all),
    Kind(
        "wipe",
        "disk",
        "a replica comes back with an empty disk (fewer than half of them in a run)",
        _brief("wipe", _named),
    ),
    Kind(
        "wipe-agent",
        "disk",
        "a node's agent and sandboxer are killed, and come back to an empty directory",
        _brief("wipe-agent", _agent),
    ),
    Kind("failing-journal", "disk", "a write of a sandboxer's journal fails", _journal),
    Kind("rot", "disk", "a synced byte of a replica's log changes while it is down (likewise)", _brief("rot", _named)),
    Kind(
        "slow-disk",
        "disk",
        "every sync of a replica takes longer (ms)",
        _disk("slow-disk", lambda d: d.randint(20, 400)),
    ),
    Kind("hung-disk", "disk", "no sync of a replica returns", _disk("hung-disk", lambda d: 0)),
    Kind("full-disk", "disk", "nothing more fits on a replica's disk", _disk("full-disk", lambda d: 0)),
    Kind(
        "failing-disk",
        "disk",
        "a write of a replica fails; the process stops, and is started again",
        _disk("failing-disk", lambda d: 0),
    ),
    Kind("clock-step", "clock", "a machine's wall clock jumps, and back at the end (ms)", _clock_step),
    Kind("clock-drift", "clock", "a machine's clocks run beyond the leases' bound (ppm)", _clock_drift),
)

KINDS: Final = {kind.name: kind for kind in _ALL}
LOSING: Final = ("wipe", "rot")
UNBOUNDED: Final = ("clock-drift", "pause", "stall")
"""With these, at most one *effect* is promised, no longer at most one process (DESIGN.md §6)."""
