"""One attempt: what the core remembers of it, and how that is told.

Owns: the states, the record clients see, why an attempt ended.  Must not know: how states change
(`agents.sandboxer.core`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from agents.sandboxer import events as ev
from agents.sandboxer import terms
from agents.sandboxer.spec import Card, Spec

SIGKILL: Final = 9


class State(Enum):
    """Life of an attempt; the figure is in `agents.sandboxer.core`."""

    PENDING = terms.STARTING
    SPAWNED = "spawned"
    RUNNING = terms.RUNNING
    STOPPING = terms.STOPPING
    DRAINING = "draining"
    EXITED = terms.EXITED


_SHOWN: Final = {State.SPAWNED: terms.STARTING, State.DRAINING: terms.STOPPING}


@dataclass(slots=True)
class Attempt:
    """One attempt and where it stands."""

    card: Card
    state: State
    spec: Spec | None = None
    intent: int = 0
    """Journal sequence of its intent."""
    floor_before: int = 0
    pid: int = 0
    unix_ms: int = 0
    sequence: int = 0
    adopted: bool = False
    stop_ordered: bool = False
    fenced: bool = False
    """It ends for want of a lease, and nobody had ordered its stop before."""
    killed: bool = False
    """We sent SIGKILL."""
    deadline_ns: int | None = None
    status: ev.Status | None = None
    failure: str = ""
    reason: str = ""
    oom_kills: int = 0
    exit_record: int = 0
    """Journal sequence of its exit."""
    released: bool = False
    forgotten: bool = False
    """Nobody needs it; it goes when its exit is durable."""
    waiting: list[ev.Caller] = field(default_factory=list)


def record_of(attempt: Attempt) -> dict[str, Any]:
    """An attempt as clients see it."""
    card = attempt.card
    return {
        "allocation": card.allocation,
        "epoch": card.epoch,
        "attempt": card.attempt,
        "job": card.job,
        "on_disconnect": card.on_disconnect,
        "state": _SHOWN.get(attempt.state, attempt.state.value),
        "pid": attempt.pid,
        "sequence": attempt.sequence,
        "adopted": attempt.adopted,
        "oom_kills": attempt.oom_kills,
        "started_unix_ms": attempt.unix_ms,
        "exit": exit_fields(attempt) if attempt.state is State.EXITED else None,
    }


def conclude(attempt: Attempt) -> str:
    """Why it ended, by the node's own evidence; the values of `scheduler.model.ExitReason`."""
    status = attempt.status
    if attempt.failure:
        return "start-failed"
    by_itself = status is not None and status.known and not attempt.stop_ordered
    if attempt.oom_kills and (by_itself or (status is not None and status.signal == SIGKILL)):
        return "oom"  # also where the program ended by itself before the rest of it could be killed
    if attempt.fenced:
        return "lease"
    if attempt.stop_ordered:
        return "stopped"
    if status is None or not status.known:
        return "lost"
    return "signaled" if status.signal is not None else "exited"


def exit_fields(attempt: Attempt) -> dict[str, Any]:
    """How an attempt ended, in the fields of `scheduler.model.Exit`."""
    status = attempt.status or ev.Status(None, None)
    failed = attempt.reason == "start-failed"
    detail = attempt.failure or status.detail
    if attempt.oom_kills and attempt.reason != "oom":
        detail = f"{detail}; the kernel killed {attempt.oom_kills} of its processes for memory".lstrip("; ")
    return {
        "code": None if failed else status.code,
        "signal": None if failed else status.signal,
        "reason": attempt.reason,
        "status_known": status.known and not failed,
        "detail": detail,
    }


def card_fields(card: Card) -> dict[str, Any]:
    """A card in the journal's short names."""
    return {
        "a": card.allocation,
        "e": card.epoch,
        "n": card.attempt,
        "j": card.job,
        "g": card.grace_ms,
        "d": card.on_disconnect,
        "h": card.digest,
    }
