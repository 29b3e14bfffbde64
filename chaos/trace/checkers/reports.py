"""What nodes report, and what their workloads do: statuses in order, exits as they were, effects by token.

Owns: the promises about what is said.  Must not know: placements, or how nodes run anything.
"""

from __future__ import annotations

from typing import Any

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.processes import Attempt, attempt_of
from chaos.trace.checkers.snapshots import REPLACED
from chaos.trace.events import Event, Life


class StatusInOrder(Rule):
    """Of an attempt's reports only higher sequences count; they begin anew when its node must tell all again."""

    name = "status-in-order"
    nothing = "no report was applied twice for an attempt"

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[Life, dict[tuple[str, Attempt], tuple[int, Event]]] = {}
        self._known: dict[Life, dict[str, Event]] = {}

    def on_status(self, event: Event) -> None:
        """Reports counted."""
        mine, node = self._last.setdefault((event.n, event.inc), {}), event.text("node")
        for allocation, epoch, sequence, _ in event.f.get("reports", ()):
            key = (node, (allocation, epoch))
            before = mine.get(key)
            mine[key] = (sequence, event)
            if before is None:
                continue
            self.verdict.checked += 1
            if sequence <= before[0]:
                self.verdict.violated(
                    f"{event.n} applied report {sequence} of {allocation} (epoch {epoch}) after {before[0]}",
                    before[1],
                    event,
                )

    def on_node(self, event: Event) -> None:
        """A node that was lost, or runs another sandboxer, tells of every attempt anew."""
        life, node = (event.n, event.inc), event.text("node")
        known = self._known.setdefault(life, {}).get(node)
        if event.f.get("do") not in ("register", "lost"):
            return
        self._known[life][node] = event
        same = known is not None and all(known.f.get(name) == event.f.get(name) for name in ("do", "incarnation"))
        if event.f.get("do") == "lost" or not same:
            mine = self._last.get(life, {})
            for key in [key for key in mine if key[0] == node]:
                del mine[key]

    def on_disk(self, event: Event) -> None:
        """A snapshot takes the place of what was applied."""
        if event.f.get("op") in REPLACED:
            self._last.pop((event.n, event.inc), None)


class ExitsHappened(Rule):
    """An exit is told as the kernel saw it; what nobody saw is told as unknown, never as a made-up code."""

    name = "exits-happened"
    nothing = "no end was told by the kernel itself"

    def __init__(self) -> None:
        super().__init__()
        self._ended: dict[tuple[str, Attempt], Event] = {}

    def on_run(self, event: Event) -> None:
        """A process ended, or its exit is told."""
        key = (event.n, attempt_of(event))
        if event.f.get("do") == "ended":
            self._ended[key] = event
            return
        if event.f.get("do") != "exit":
            return
        told, happened = event.part("exit"), self._ended.get(key)
        if happened is None or told.get("status_known") is not True:
            return
        self.verdict.checked += 1
        for name in ("code", "signal"):
            if name in happened.f and happened.f[name] != told.get(name):
                self.verdict.violated(
                    f"{key[1][0]} ended with {name} {happened.f[name]} on {event.n}, which tells {told.get(name)}",
                    happened,
                    event,
                )
                return


class OneEffect(Rule):
    """Whoever compares tokens never accepts one lower than it accepted before: at most one effect, always (§6)."""

    name = "at-most-one-effect"
    nothing = "no token was presented"

    def __init__(self) -> None:
        super().__init__()
        self._highest: dict[str, tuple[tuple[int, ...], Event]] = {}

    def on_effect(self, event: Event) -> None:
        """A token was presented for a key."""
        self.verdict.checked += 1
        if event.f.get("accepted") is not True:
            return
        token, key = _token(event.f.get("token")), event.text("key")
        before = self._highest.get(key)
        if before is not None and token < before[0]:
            self.verdict.violated(
                f"{key} accepted token {event.f.get('token')} after {before[1].f.get('token')}", before[1], event
            )
        else:
            self._highest[key] = (token, event)


def _token(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    if isinstance(value, str):
        return tuple(int(part) for part in value.replace(":", ".").replace("-", ".").split(".") if part.isdigit())
    return tuple(int(part) for part in value) if isinstance(value, list | tuple) else ()
