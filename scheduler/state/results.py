"""What applying a command says back.

Owns: one result struct a command, with a stable `code` on refusal and the changes as trace
events.  Must not know: how they are shown or sent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

Change = tuple[str, dict[str, Any]]
"""(kind, fields), ready for ``tracer.emit(kind, **fields)``; kinds job, place, node (DESIGN.md §10)."""


class Result(Struct, frozen=True, kw_only=True):
    """Common to all results.  `code` is "" when the command was done."""

    index: int
    code: str = ""
    message: str = ""
    hint: str = ""
    changes: tuple[Change, ...] = ()

    @property
    def traced(self) -> tuple[Change, ...]:
        """What the trace is told beyond the changes: for those who judge a run, not for those who follow the state."""
        return ()

    def for_caller(self) -> Result:
        """Without what the caller's replica applies itself."""
        return replace(self, changes=())

    @property
    def ok(self) -> bool:
        """Whether the command was not refused as a whole."""
        return not self.code


class NodeResult(Result, frozen=True, kw_only=True):
    """Of RegisterNode, SetNodeState, SetNodeLabels and SetNodeTaints.

    `outcome`: registered | unchanged | updated | replaced (new sandboxer) | rebooted | ready | cordoned.
    """

    node: str
    generation: int = 0
    outcome: str = ""


class JobResult(Result, frozen=True, kw_only=True):
    """Of SubmitJob and StopJob.

    A repeated request id gets the first result again: `index` is then the index of the
    first one and `repeated` is set.  `outcome`: created | replaced | unchanged | stopped.
    """

    job: str
    version: int = 0
    outcome: str = ""
    repeated: bool = False


class Refusal(Struct, frozen=True):
    """Why one placement of a plan was not booked."""

    allocation: str
    attempt: int
    node: str
    code: str
    reason: str


class PlanResult(Result, frozen=True, kw_only=True):
    """Of Plan.  `placed` are (allocation, attempt, epoch)."""

    placed: tuple[tuple[str, int, int], ...] = ()
    refused: tuple[Refusal, ...] = ()


class StatusResult(Result, frozen=True, kw_only=True):
    """Of ReportStatus.

    `unknown` are (allocation, epoch) pairs that this state does not know on that node:
    what runs there under them needs a committed stop (StopUnknown).  `taken` are the reports
    that counted, (allocation, epoch, sequence, state), in their order.
    """

    node: str = ""
    applied: int = 0
    stale: int = 0
    unknown: tuple[tuple[str, int], ...] = ()
    taken: tuple[tuple[str, int, int, str], ...] = ()

    @property
    def traced(self) -> tuple[Change, ...]:
        """One `status` event a command, whatever it reports."""
        if not self.taken:
            return ()
        return (("status", {"index": self.index, "node": self.node, "reports": self.taken}),)

    def for_caller(self) -> StatusResult:
        """Without what the caller's replica applies itself."""
        return replace(self, changes=(), taken=())


class CollectResult(Result, frozen=True, kw_only=True):
    """Of Collect: the jobs that were forgotten."""

    jobs: tuple[str, ...] = ()


class LossResult(Result, frozen=True, kw_only=True):
    """Of NodesLost: the nodes that are lost now, and the others with a code each."""

    lost: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class StopsResult(Result, frozen=True, kw_only=True):
    """Of StopUnknown: the (allocation, epoch) pairs that have a stop record now."""

    stops: tuple[tuple[str, int], ...] = ()


class OwnersResult(Result, frozen=True, kw_only=True):
    """Of SetOwners: the epoch and owners in force."""

    epoch: int = 0
    owners: tuple[str, ...] = ()
