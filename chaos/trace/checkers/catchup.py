"""A replica that comes back is caught up by few questions.

Owns: how often a leader may guess wrong where a follower's log leaves its own.  Must not know: what is then sent.
"""

from __future__ import annotations

from chaos.trace.checkers.base import Rule
from chaos.trace.events import Event, Life

SPARE = 4
"""Guesses beyond one a term: the first, a repeated one, and one each for a snapshot and a restart in between."""


class BoundedCatchUp(Rule):
    """A leader finds where a follower's log leaves its own with one guess a term, not one an entry (§5.3).

    A refused Append names the entry before it; guesses go down, while Appends that were under way go up.
    """

    name = "bounded-catch-up"
    nothing = "no follower refused an Append"
    types = {"recv": ("append-reply",)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._terms: set[int] = set()
        self._guesses: dict[tuple[Life, int, str], list[Event]] = {}

    def on_role(self, event: Event) -> None:
        """Only a term with a leader has entries."""
        if event.f.get("role") == "leader":
            self._terms.add(event.number("term"))

    def on_recv(self, event: Event) -> None:
        """Perhaps a refusal."""
        key = ((event.n, event.inc), event.number("term"), event.text("fr"))
        if event.f.get("accepted") is not False:
            self._guesses.pop(key, None)
            return
        guesses = self._guesses.setdefault(key, [])
        if guesses and event.number("index") >= guesses[-1].number("index"):
            return
        guesses.append(event)
        self.verdict.checked += 1
        bound = len(self._terms) + SPARE
        if len(guesses) == bound + 1:
            self.verdict.violated(
                f"{event.n} guessed {len(guesses)} times where the log of {key[2]} leaves its own, and there are "
                f"{len(self._terms)} terms",
                guesses[0],
                *guesses[-3:],
            )
