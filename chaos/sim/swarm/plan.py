"""Everything that a seed stands for, as one value that can be written down, shrunk and run.

Owns: the plan's shape, its JSON, and which replicas form the core of phase two.
Must not know: how a plan is carried out.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from chaos.sim.swarm.kinds import Fault
from chaos.sim.swarm.load import Call, draw_load
from chaos.sim.swarm.profile import Policy, Profile, Transport, draw_profile, stream
from chaos.sim.swarm.schedule import draw_faults, losers

Frozen = Literal["off", "cut", "paused", "left"]
_FROZEN: Final[tuple[Frozen, ...]] = ("off", "cut", "paused", "left")


class Plan(Struct, frozen=True):
    """One run of the simulator.

    `core` names the replicas and agents that are healed first, in phase two; `rest` says what becomes of each of
    the others meanwhile: ``off`` (no power), ``cut`` (from everybody), ``paused``, or ``left`` with the faults it has.
    """

    profile: Profile
    faults: tuple[Fault, ...]
    load: tuple[Call, ...]
    core: tuple[str, ...]
    rest: tuple[tuple[str, Frozen], ...]

    @property
    def seed(self) -> int:
        """The seed that it was drawn from."""
        return self.profile.seed

    def with_faults(self, faults: tuple[Fault, ...]) -> Plan:
        """The same with another schedule of faults."""
        return msgspec.structs.replace(self, faults=faults)

    def with_policy(self, policy: Policy) -> Plan:
        """The same with another order of what is ready to run."""
        return msgspec.structs.replace(self, profile=msgspec.structs.replace(self.profile, policy=policy))


def draw_plan(seed: int, transport: Transport | None = None) -> Plan:
    """The plan of a seed."""
    profile = draw_profile(seed, transport)
    faults = draw_faults(profile)
    core = draw_core(profile, faults)
    return Plan(profile, faults, draw_load(profile), core, draw_rest(profile, core))


def draw_core(profile: Profile, faults: tuple[Fault, ...]) -> tuple[str, ...]:
    """A random majority of the replicas, and at least half of the agents.

    A replica that loses its disk counts for nobody's majority until it was taken back, so the
    majority is found among the others; there are enough of them (`schedule.fair`).
    """
    dice = stream(profile.seed, "core")
    lost = losers(faults)
    whole = [name for name in profile.replica_names if name not in lost]
    majority = len(profile.replicas) // 2 + 1
    replicas = dice.sample(whole, dice.randint(majority, len(whole)))
    agents = dice.sample(profile.agent_names, dice.randint((len(profile.agents) + 1) // 2, len(profile.agents)))
    return (*sorted(replicas), *sorted(agents))


def draw_rest(profile: Profile, core: tuple[str, ...]) -> tuple[tuple[str, Frozen], ...]:
    """What becomes of each machine outside the core while the core must recover."""
    dice = stream(profile.seed, "rest")
    everybody = (*profile.replica_names, *profile.agent_names)
    return tuple((name, dice.choice(_FROZEN)) for name in everybody if name not in core)


def plan_to_builtins(plan: Plan) -> dict[str, Any]:
    """As plain data, for JSON."""
    built: dict[str, Any] = msgspec.to_builtins(plan)
    return built


def plan_from_builtins(value: Any) -> Plan:
    """The plan of `plan_to_builtins`; raises msgspec.ValidationError."""
    return msgspec.convert(value, Plan)
