"""What sandboxers told and did, against what the machines' kernels saw.

Owns: exits told when nothing runs any more, signals that reach workloads alone.
Must not know: how processes are supervised; a trace without a kernel's own words is not judged.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.processes import ORDER_S
from chaos.trace.events import Event, Trace

Attempt = tuple[str, str, int]
"""(node, allocation, epoch)."""


def _attempt(event: Event) -> Attempt:
    return event.n, event.text("allocation"), event.number("epoch")


class ExitsComeLast(Rule):
    """An exit, which frees capacity, is told only after the last process of the attempt went."""

    name = "exits-come-last"
    nothing = "no kernel told of a process"

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[Attempt, Event] = {}
        self._seen: set[Attempt] = set()
        self._early: dict[Attempt, tuple[Event, Event]] = {}

    def on_run(self, event: Event) -> None:
        """A process came or went, or an exit is told."""
        do, attempt = event.f.get("do"), _attempt(event)
        if do == "began":
            self._running[attempt] = event
            self._seen.add(attempt)
        elif do == "emptied":
            self._running.pop(attempt, None)
            if attempt in self._early and event.t <= self._early[attempt][1].t + ORDER_S:
                del self._early[attempt]
        elif do == "exit" and attempt in self._seen:
            self.verdict.checked += 1
            if attempt in self._running:
                self._early[attempt] = (self._running[attempt], event)

    def finish(self, trace: Trace) -> None:
        """Those whose last process did not go at that very moment."""
        for (node, allocation, _), (began, told) in self._early.items():
            self.verdict.violated(f"{node} tells that {allocation} has exited while it runs", began, told)


class HarmsNobody(Rule):
    """Nobody signals a process that is no workload's: a number names a process only with its start time."""

    name = "harms-nobody"
    nothing = "no kernel told of a signal"

    def on_run(self, event: Event) -> None:
        """A process ended, or was signalled for another one."""
        if event.f.get("do") == "ended":
            self.verdict.checked += 1
        elif event.f.get("do") == "harmed":
            self.verdict.violated(
                f"{event.n} sent signal {event.number('signal')} to process {event.number('pid')}, no workload's",
                event,
            )
