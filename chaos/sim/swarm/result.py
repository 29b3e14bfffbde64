"""What one seed's run says.

Owns: the shape of a result.  Must not know: how a run comes about, or how results are counted up.
"""

from __future__ import annotations

from msgspec import Struct

from chaos.sim.swarm.profile import Transport


class Failure(Struct, frozen=True):
    """One violated checker; `refs` name the events that prove it (``n/inc/i``)."""

    checker: str
    detail: str
    refs: tuple[str, ...] = ()


class SeedResult(Struct, frozen=True):
    """One run of one plan.

    `unknown`: checkers that could not decide.  `sometimes`: which situations were reached.  `digest`: of the whole
    trace's bytes, "" if not asked for.  `steps`: handles that the loop ran.
    """

    seed: int
    transport: Transport
    failures: tuple[Failure, ...]
    unknown: tuple[str, ...]
    sometimes: dict[str, bool]
    events: int
    steps: int
    virtual_ms: int
    replicas: int
    agents: int
    jobs: int
    faults: int
    digest: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything is violated."""
        return bool(self.failures)
