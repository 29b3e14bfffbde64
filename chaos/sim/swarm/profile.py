"""What a seed decides about the cluster itself: sizes, speeds, clocks, thresholds.

Owns: the shape of one simulated cluster and drawing it from the seed.
Must not know: which faults are thrown at it (`schedule`), which load it gets (`load`), or how it is run.

Every group of decisions draws from a stream of its own, named after it, so that a change in how
one group is drawn leaves all others of the same seed as they were.  A seed's first few numbers are
drawn small on purpose: short leases, small segments, snapshots every few dozen entries, so that
much happens in half a minute of virtual time.
"""

from __future__ import annotations

from random import Random
from typing import Final, Literal

from msgspec import Struct

Transport = Literal["direct", "http"]
Policy = Literal["fifo", "random", "pct"]

HTTP_PERCENT: Final = 5
"""Share of seeds that run over unmodified aiohttp; it is some ten times slower."""
REPLICAS: Final = (3, 3, 3, 3, 3, 3, 3, 4, 5)
ZONES: Final = ("east", "west")
SPECIAL_TAINT: Final = "special=yes:NoSchedule"
MIB: Final = 1 << 20


class Spread(Struct, frozen=True, array_like=True):
    """A quantity drawn evenly from [least, most]."""

    least: int
    most: int


class ClockShape(Struct, frozen=True):
    """How one machine's clocks err from the start: wall offset, and the rate of all of them."""

    offset_ms: int
    rate_ppm: int


class MachineShape(Struct, frozen=True):
    """One machine; `torn` says what a power loss leaves of unsynced bytes (none, some, reordered)."""

    name: str
    clock: ClockShape
    sync_us: Spread
    torn: bool


class NodeShape(Struct, frozen=True):
    """What an agent's node offers."""

    cpu_millicores: int
    memory_bytes: int
    labels: dict[str, str]
    taints: tuple[str, ...]


class RaftShape(Struct, frozen=True):
    """Consensus, tuned to be busy."""

    election_timeout_ms: int
    snapshot_entries: int
    keep_tail_entries: int
    segment_bytes: int
    snapshot_chunk_bytes: int
    max_inflight_messages: int


class LeaseShape(Struct, frozen=True):
    """Leases of nodes."""

    duration_ms: int
    drift_ppm: int
    delta_ms: int
    heartbeat_ms: int


class Profile(Struct, frozen=True):
    """One simulated cluster."""

    seed: int
    transport: Transport
    policy: Policy
    replicas: tuple[MachineShape, ...]
    agents: tuple[MachineShape, ...]
    nodes: tuple[NodeShape, ...]
    """One for each of `agents`."""
    raft: RaftShape
    lease: LeaseShape
    latency_us: Spread
    loss_permille: int
    """Of every segment on every link, faults or not; retransmission hides it, at a price."""
    safety_ms: int
    """Length of phase one."""

    @property
    def replica_names(self) -> tuple[str, ...]:
        """``n1`` …"""
        return tuple(machine.name for machine in self.replicas)

    @property
    def agent_names(self) -> tuple[str, ...]:
        """``a1`` …"""
        return tuple(machine.name for machine in self.agents)


def stream(seed: int, name: str) -> Random:
    """The seed's stream of that name; the same in every process, whatever its hash seed."""
    return Random(f"skerry:{seed}:{name}")  # noqa: S311  reproducible on purpose


def draw_profile(seed: int, transport: Transport | None = None) -> Profile:
    """The cluster that `seed` stands for; `transport` overrides what it would have drawn."""
    drawn: Transport = "http" if stream(seed, "transport").randrange(100) < HTTP_PERCENT else "direct"
    sizes = stream(seed, "sizes")
    replicas = sizes.choice(REPLICAS)
    agents = sizes.choice((4, 4, 4, 4, 4, 4, 5, 6))
    raft, lease = _raft(stream(seed, "raft")), _lease(stream(seed, "lease"))
    network = stream(seed, "network")
    slow = network.random() < 0.25
    return Profile(
        seed=seed,
        transport=transport or drawn,
        policy=stream(seed, "policy").choice(("fifo", "random", "random", "pct")),
        replicas=_machines(stream(seed, "replicas"), "n", replicas, lease),
        agents=_machines(stream(seed, "agents"), "a", agents, lease),
        nodes=_nodes(stream(seed, "nodes"), agents),
        raft=raft,
        lease=lease,
        latency_us=Spread(5_000, 30_000) if slow else Spread(200, 200 + network.randrange(3_000)),
        loss_permille=network.choice((0, 0, 0, 2, 10)),
        safety_ms=stream(seed, "length").randint(14_200, 15_800),
    )


def _machines(dice: Random, letter: str, count: int, lease: LeaseShape) -> tuple[MachineShape, ...]:
    """Clocks within the lease's drift bound: two of them differ by less than it."""
    half = lease.drift_ppm // 2
    return tuple(
        MachineShape(
            name=f"{letter}{number}",
            clock=ClockShape(
                offset_ms=dice.choice((0, 0, dice.randint(-500, 500))), rate_ppm=dice.randint(-half, half)
            ),
            sync_us=Spread(100, dice.choice((400, 2_000, 8_000))),
            torn=dice.random() < 0.5,
        )
        for number in range(1, count + 1)
    )


def _nodes(dice: Random, count: int) -> tuple[NodeShape, ...]:
    """The first two nodes are plain, so that plain work always has a place; others may be special."""
    shapes = []
    for number in range(count):
        special = number >= 2 and dice.random() < 0.3
        shapes.append(
            NodeShape(
                cpu_millicores=dice.choice((2_000, 4_000, 8_000)),
                memory_bytes=dice.choice((2, 4, 8)) * 1024 * MIB,
                labels={"zone": ZONES[number % len(ZONES)]},
                taints=(SPECIAL_TAINT,) if special else (),
            )
        )
    return tuple(shapes)


def _raft(dice: Random) -> RaftShape:
    return RaftShape(
        election_timeout_ms=dice.choice((800, 1_200, 1_600, 2_400)),
        snapshot_entries=dice.choice((48, 96, 192, 50_000)),
        keep_tail_entries=dice.choice((0, 8, 32)),
        segment_bytes=dice.choice((1 << 16, 1 << 17)),
        snapshot_chunk_bytes=dice.choice((1 << 10, 1 << 12, 256 << 10)),
        max_inflight_messages=dice.choice((1, 4, 8)),
    )


def _lease(dice: Random) -> LeaseShape:
    duration_ms = dice.choice((2_500, 3_500, 4_500, 6_000))
    return LeaseShape(
        duration_ms=duration_ms,
        drift_ppm=dice.choice((1_000, 10_000)),
        delta_ms=dice.choice((200, 500)),
        heartbeat_ms=duration_ms // 3,
    )
