"""The one line that repeats a run.

Owns: spelling a run as a command, and reading the part of the schedule that it names.
Must not know: how runs are carried out.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.errors import ScenarioInvalid
from chaos.sim.swarm.plan import Plan
from chaos.sim.swarm.profile import Policy, Transport


class Wanted:
    """What a command line asks for beyond the seed."""

    def __init__(
        self,
        *,
        breaks: Sequence[str] = (),
        transport: Transport | None = None,
        faults: tuple[int, ...] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.breaks = tuple(breaks)
        self.transport = transport
        self.faults = faults
        self.policy = policy

    def applied(self, plan: Plan) -> Plan:
        """The seed's plan with the named faults alone, and the named order of what is ready.

        Raises:
            ScenarioInvalid: the seed has no fault of such a number.
        """
        if self.faults is not None:
            beyond = [number for number in self.faults if number >= len(plan.faults)]
            if beyond:
                raise ScenarioInvalid(
                    f"seed {plan.seed} has no fault number {beyond[0]}",
                    hint=f"it has {len(plan.faults)}, from 0; `skerry sim --seed {plan.seed} --plan` lists them",
                )
            plan = plan.with_faults(tuple(plan.faults[number] for number in self.faults))
        return plan.with_policy(self.policy) if self.policy is not None else plan

    def line(self, seed: int) -> str:
        """``skerry sim --seed 7 …``."""
        words = ["skerry", "sim", "--seed", str(seed)]
        for name in self.breaks:
            words += ["--break", name]
        if self.transport is not None:
            words += ["--transport", self.transport]
        if self.faults is not None:
            words += ["--faults", ",".join(map(str, self.faults)) or "none"]
        if self.policy is not None:
            words += ["--policy", self.policy]
        return " ".join(words)


def parse_faults(text: str | None) -> tuple[int, ...] | None:
    """``0,3`` or ``none``; raises ScenarioInvalid."""
    if text is None:
        return None
    if text == "none":
        return ()
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ScenarioInvalid(f"{text!r} names no faults", hint="give numbers, such as 0,3, or none")
    return tuple(sorted({int(part) for part in parts}))
