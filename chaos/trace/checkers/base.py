"""What every checker returns.

Owns: the finding's shape and the rule that nothing is claimed without having been checked.
Must not know: any invariant.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from chaos.trace.events import Event, Trace

REFS_MAX = 20


class Finding(Struct, frozen=True):
    """The outcome of one invariant.

    `ok`: True = held wherever checked; False = violated; None = unknown (nothing to check, or
    the evidence was lost).  `checked` counts what was compared.  `refs` name the events
    (``n/inc/i``) that prove a violation, and `detail` says it in words.
    """

    name: str
    ok: bool | None
    checked: int
    refs: tuple[str, ...] = ()
    detail: str = ""


Checker = Callable[[Trace], Finding]


class Verdict:
    """Collects what a checker sees; the first violation is the one that is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checked = 0
        self._violations = 0
        self._refs: list[str] = []
        self._detail = ""
        self._unknown = 0
        self._unknown_detail = ""

    def violated(self, detail: str, *events: Event) -> None:
        """A violation, proven by these events."""
        self._violations += 1
        if not self._detail:
            self._detail = detail
        for event in events:
            if event.ref not in self._refs and len(self._refs) < REFS_MAX:
                self._refs.append(event.ref)

    def unknown(self, detail: str) -> None:
        """Something that the evidence left cannot decide."""
        self._unknown += 1
        self._unknown_detail = self._unknown_detail or detail

    def finding(self, nothing: str) -> Finding:
        """The outcome; `nothing` says what was missing when nothing could be checked."""
        if self._violations:
            more = f" (and {self._violations - 1} more)" if self._violations > 1 else ""
            return Finding(self.name, False, self.checked, tuple(self._refs), self._detail + more)
        if self.checked == 0:
            return Finding(self.name, None, 0, (), self._unknown_detail or nothing)
        detail = f"undecided: {self._unknown} ({self._unknown_detail})" if self._unknown else ""
        return Finding(self.name, True, self.checked, (), detail)
