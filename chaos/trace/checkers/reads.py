"""No read is older than what was acknowledged before it was asked.

Owns: the order of callers' answers in real time against the indexes that they name.  Must not know: how reads are
confirmed.

Real time is the wall clock of the processes that told of the calls: true in the simulator and on one machine.  Reads
that ask for stale data are told as such and promise nothing.
"""

from __future__ import annotations

from operator import attrgetter

from chaos.trace.checkers.base import Finding, Verdict
from chaos.trace.events import Event, Trace

_BY_TIME = attrgetter("t", "hlc", "n", "i")


def no_stale_read(trace: Trace) -> Finding:
    """A read answers from an index at least that of every answer given before it was asked (linearizability)."""
    verdict = Verdict("no-stale-read")
    newest: Event | None = None
    asked: dict[tuple[str, str], Event | None] = {}
    for event in sorted(trace.kind("op"), key=_BY_TIME):
        phase, key = event.f.get("ph"), (event.text("id"), event.text("client"))
        if event.f.get("stale") is True:
            continue
        if phase == "invoke":
            if event.f.get("op") == "read":
                asked[key] = newest if newest is None or newest.t < event.t else None
            continue
        index = event.part("value").get("index")
        if phase != "ok" or not isinstance(index, int):
            continue
        if key in asked:
            before = asked.pop(key)
            if before is not None:
                verdict.checked += 1
                known = before.part("value")["index"]
                if index < known:
                    verdict.violated(
                        f"{event.text('id')} was answered from index {index}, asked after {before.text('id')} was "
                        f"answered with {known}",
                        before,
                        event,
                    )
        if newest is None or index > newest.part("value")["index"]:
            newest = event
    return verdict.finding("no read was asked after an answer")
