"""No start under an old token, and none without a lease.

Owns: what a node's own words must not show about what it starts.  Must not know: how leases are kept, or what the
kernel saw.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.checkers.runs import is_given
from chaos.trace.events import Event

KERNEL = ("began", "ended", "emptied", "harmed")
"""What a simulated kernel says, not the node."""


class Fencing(Rule):
    """On a node tokens of an allocation only rise, and without a lease nothing that needs one starts.

    A node whose directory is another one remembers nothing of what the one before it started: its tokens begin anew.
    What was let through just before the deadline or its stop, and is being ended already, may tell its start a moment
    later: a sandboxer tells that it stops only what it has spawned.
    """

    name = "fencing"
    nothing = "nothing ran"

    def __init__(self) -> None:
        super().__init__()
        self._highest: dict[tuple[str, str], Event] = {}
        self._given: dict[str, Event] = {}
        self._expired: dict[str, Event] = {}
        self._let_through: set[tuple[str, str, int]] = set()
        self._installed: dict[str, tuple[int, object]] = {}

    def on_lease(self, event: Event) -> None:
        """A lease is given, or one runs out: perhaps an older one, by a sandboxer that was late."""
        if event.f.get("do") == "expire":
            given = self._given.get(event.n)
            if given is None or given.number("deadline_ns") <= event.number("deadline_ns"):
                self._expired[event.n] = event
        elif is_given(event):
            self._given[event.n] = event
            self._expired.pop(event.n, None)

    def on_node(self, event: Event) -> None:
        """Forget the tokens of a node that registers from another directory; replicas tell it more than once."""
        node, index, installation = event.text("node"), event.number("index"), event.f.get("installation")
        known = self._installed.get(node, (0, installation))
        if event.f.get("do") != "register" or installation is None or index <= known[0]:
            return
        self._installed[node] = (index, installation)
        if known[1] != installation:
            for key in [key for key in self._highest if key[0] == node]:
                del self._highest[key]

    def on_run(self, event: Event) -> None:
        """Something starts, or ends."""
        do = event.f.get("do")
        if do in KERNEL:
            return
        key = (event.n, event.text("allocation"))
        if do == "fenced":
            self._let_through.add((*key, event.number("epoch")))
        elif do == "start":
            self.verdict.checked += 1
            self._check_token(key, event)
            self._check_lease(key, event)
        if event.number("epoch") >= self._highest.get(key, event).number("epoch"):
            self._highest[key] = event

    def _check_token(self, key: tuple[str, str], event: Event) -> None:
        before = self._highest.get(key)
        if before is None or before.number("epoch") < event.number("epoch") or _ends(before, event):
            return
        self.verdict.violated(
            f"{event.n} started {key[1]} under token {event.number('epoch')} after it had seen "
            f"{before.number('epoch')}",
            before,
            event,
        )

    def _check_lease(self, key: tuple[str, str], event: Event) -> None:
        expired = self._expired.get(event.n)
        through = (*key, event.number("epoch")) in self._let_through
        if expired is not None and event.f.get("on_disconnect") == "stop" and not through:
            self.verdict.violated(f"{event.n} started {key[1]}, whose lease had run out", expired, event)


def _ends(before: Event, start: Event) -> bool:
    """Whether the event before says that the very attempt is being ended."""
    return before.number("epoch") == start.number("epoch") and before.f.get("do") in ("stop", "fenced")
