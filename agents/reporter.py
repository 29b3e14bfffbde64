"""Reports on their way into the log: numbered, in order, repeated until committed.

Owns: the queue of reports and the one status in flight.  Pure: time comes in as an argument.
Must not know: sockets, the sandboxer, or why something is reported.

Sequences come from the sandboxer, which outlives the agent: a restarted agent reports with the
same ones again, and the replicated state ignores what it already has.  Status *numbers* belong to
this agent process alone; a status keeps number and contents until it is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from scheduler.commands import AllocationStatus
from scheduler.session import Status

REPORTS_MAX = 512
"""Reports in one status; with the longest details it stays far below a command's 1 MiB."""
UNKNOWN_MAX = 1024
DETAIL_CHARS_MAX = 512
RESEND_S = 5.0

Key = tuple[str, int]


class Reporter:
    """At most one status is in flight: the next is made when it is committed.

    Invariant: a report leaves the queue only by `committed`, so losing a session loses none, or by
    `sandboxer_changed`, after which everything is told anew.
    """

    def __init__(self) -> None:
        self._waiting: deque[AllocationStatus] = deque()
        self._flying: Status | None = None
        self._sent_at: float | None = None
        self._number = 0
        self._told: dict[Key, int] = {}

    @property
    def outstanding(self) -> int:
        """Reports not known to be committed."""
        return len(self._waiting) + (len(self._flying.reports) if self._flying else 0)

    def add(self, status: AllocationStatus) -> None:
        """Queue one report behind all earlier ones."""
        self._waiting.append(status)

    def session_began(self) -> None:
        """Another replica listens now: what is in flight goes out again, unknown ones are told anew."""
        self._sent_at = None
        self._told = {}

    def sandboxer_changed(self) -> None:
        """Forget what another sandboxer said: its sequences mean nothing under the present one's incarnation.

        A report of it that was taken under the new registration would hide every later one with a lower sequence.
        Whoever adopts the new sandboxer's list tells all of it, and what the old one ended, once more.
        """
        self._waiting.clear()
        self._flying = None
        self._sent_at = None

    def next(self, now_s: float, *, known_index: int, unknown: Sequence[Key]) -> Status | None:
        """The status to send now, or None.

        `unknown` pairs are told once per known index: the answer (a stop or an assignment) comes
        with a later set.
        """
        if self._flying is None:
            self._make(known_index, unknown)
        if self._flying is None or (self._sent_at is not None and now_s - self._sent_at < RESEND_S):
            return None
        self._sent_at = now_s
        return self._flying

    def due_in(self, now_s: float) -> float | None:
        """Seconds until the status in flight is to be sent again; None = nothing in flight."""
        if self._flying is None:
            return None
        return 0.0 if self._sent_at is None else max(0.0, self._sent_at + RESEND_S - now_s)

    def committed(self, number: int) -> tuple[AllocationStatus, ...]:
        """The replica says status `number` is committed; returns its reports, () for another number."""
        if self._flying is None or self._flying.number != number:
            return ()
        reports = self._flying.reports
        self._flying = None
        self._sent_at = None
        return reports

    def _make(self, known_index: int, unknown: Sequence[Key]) -> None:
        news = tuple(key for key in unknown if self._told.get(key, -1) < known_index)[:UNKNOWN_MAX]
        if not self._waiting and not news:
            return
        count = min(REPORTS_MAX, len(self._waiting))
        reports = tuple(self._waiting.popleft() for _ in range(count))
        self._number += 1
        self._told = {key: at for key, at in self._told.items() if key in unknown}
        self._told.update(dict.fromkeys(news, known_index))
        self._flying = Status(self._number, known_index, reports, news)
