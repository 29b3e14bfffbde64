"""Why a world stands still: every task and what it waits for.

Owns: the errors that end a run of the loop, and their words.  Must not know: what the tasks are for.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chaos.errors import ChaosError

TASKS_TOLD_MAX: Final = 60


class Deadlock(ChaosError):
    """Nothing is ready and no timer is set, but somebody still waits."""

    code = "sim-deadlock"

    def __init__(self, now_ns: int, waiting: list[str]) -> None:
        super().__init__(f"deadlock at {now_ns / 1e9:.9f} s: nothing is ready and no timer is set\n" + _told(waiting))


class Livelock(ChaosError):
    """Steps go on and on without time passing."""

    code = "sim-livelock"

    def __init__(self, now_ns: int, handle: Any, waiting: list[str]) -> None:
        super().__init__(
            f"livelock at {now_ns / 1e9:.9f} s: time does not pass; the last step was {handle!r}\n" + _told(waiting)
        )


def waiting_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """One line for each unfinished task of a living process: its life, its name, where it stands, what it awaits."""
    tasks = [task for task in asyncio.all_tasks(loop) if not _is_dead(task)]
    return [_line(task) for task in sorted(tasks, key=lambda each: getattr(each, "number", 0))]


def _is_dead(task: asyncio.Task[Any]) -> bool:
    life = getattr(task, "life", None)
    return life is not None and life.dead


def _line(task: asyncio.Task[Any]) -> str:
    life = getattr(task, "life", None)
    frames, awaited = _stack(task.get_coro())
    what = "" if awaited is None else f", awaiting {_named(awaited)}"
    return f"  {life.name if life else '?'} · {task.get_name()}: {' → '.join(frames) or 'not started'}{what}"


def _stack(coroutine: Any) -> tuple[list[str], Any]:
    """Where a coroutine stands, outermost first, and the object at the end that it waits for."""
    frames: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            return frames, coroutine
        frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaits = "cr_await" if hasattr(coroutine, "cr_await") else "gi_yieldfrom"
        coroutine = getattr(coroutine, awaits, None)
    return frames, None


def _named(awaited: Any) -> str:
    if isinstance(awaited, asyncio.Task):
        return f"task {awaited.get_name()}"
    return type(awaited).__name__


def _told(waiting: list[str]) -> str:
    more = len(waiting) - TASKS_TOLD_MAX
    return "\n".join(waiting[:TASKS_TOLD_MAX]) + (f"\n  … and {more} more" if more > 0 else "")
