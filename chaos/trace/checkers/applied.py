"""What applying owes to the log and to memory: each entry once, and no row kept for what is forgotten.

Owns: the promises of one replica's state machine to itself.  Must not know: other replicas.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.processes import Attempt, attempt_of
from chaos.trace.checkers.snapshots import REPLACED
from chaos.trace.events import Event, Life


class AppliedOnce(Rule):
    """An entry is applied once: no plan finds its own placement there already."""

    name = "applied-once"
    nothing = "nothing was placed"

    def __init__(self) -> None:
        super().__init__()
        self._bound: dict[Life, tuple[int, dict[str, Event]]] = {}

    def on_disk(self, event: Event) -> None:
        """Whose state is replaced applies entries again."""
        if event.f.get("op") in REPLACED:
            self._bound.pop((event.n, event.inc), None)

    def on_place(self, event: Event) -> None:
        """A placement is bound or refused."""
        life, index, do = (event.n, event.inc), event.number("index"), event.f.get("do")
        if do not in ("bind", "refuse"):
            return
        at, bound = self._bound.get(life, (0, {}))
        if at != index:
            at, bound = self._bound[life] = (index, {})
        allocation = event.text("allocation")
        self.verdict.checked += 1
        if allocation in bound and bound[allocation].number("attempt") == event.number("attempt"):
            self.verdict.violated(
                f"{event.n} applied entry {index} twice: it bound {allocation}, and then took it up again",
                bound[allocation],
                event,
            )
        elif do == "bind":
            bound[allocation] = event


class NoSlotLeaked(Rule):
    """With a job all rows of its attempts are given back: no more are taken than attempts of the jobs that are left."""

    name = "no-slot-leaked"
    nothing = "no job was collected"

    def __init__(self) -> None:
        super().__init__()
        self._bound: dict[Life, dict[str, set[Attempt]]] = {}
        self._blind: set[Life] = set()

    def on_disk(self, event: Event) -> None:
        """A life that begins with a snapshot does not see all attempts."""
        if event.f.get("op") in REPLACED:
            self._blind.add((event.n, event.inc))

    def on_place(self, event: Event) -> None:
        """An attempt takes a row."""
        if event.f.get("do") == "bind":
            mine = self._bound.setdefault((event.n, event.inc), {})
            mine.setdefault(event.text("job"), set()).add(attempt_of(event))

    def on_job(self, event: Event) -> None:
        """Perhaps a job is collected; of several in one command only the last tells the rows after all."""
        life = (event.n, event.inc)
        if event.f.get("do") != "collect" or life in self._blind:
            return
        mine = self._bound.setdefault(life, {})
        mine.pop(event.text("job"), None)
        rows = event.number("rows")
        if rows < 0:
            return
        self.verdict.checked += 1
        left = sum(len(attempts) for attempts in mine.values())
        if rows > left:
            self.verdict.violated(
                f"{event.n} keeps {rows} rows after {event.text('job')} was collected, and {left} attempts are left",
                event,
            )
