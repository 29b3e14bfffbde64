"""What the loop runs: callbacks and timers that know their life, tasks and futures that hash the same everywhere.

Owns: the shapes.  Must not know: when they run.

asyncio's own handles would do, but each costs several times as much to make, and a run makes a hundred thousand.
Tasks and futures hash by a counter, because sets of them are iterated in the order of their hashes, which for
asyncio's own are addresses in memory.
"""

from __future__ import annotations

import asyncio
import itertools
from contextvars import Context, copy_context
from typing import Any, Final

from msgspec import Struct

from chaos.sim.lives import LIFE, ROOT, Life

BURIALS_MAX: Final = 100
"""A coroutine that awaits so often in its `finally` blocks is left to the garbage collector."""


class SimHandle(Struct, eq=False):
    """One callback that is ready or will be; does what `asyncio.Handle` does."""

    _callback: Any
    _args: Any
    _context: Context
    life: Life
    _cancelled: bool = False

    def cancel(self) -> None:
        """Never run it."""
        self._cancelled = True
        self._callback = self._args = None

    def cancelled(self) -> bool:
        """Whether it will never run."""
        return self._cancelled

    def get_context(self) -> Context:
        """The context it runs in."""
        return self._context

    def steps_task(self) -> bool:
        """Whether it runs a step of a task."""
        return getattr(self._callback, "__self__", None).__class__ is SimTask

    def task_number(self) -> int:
        """The number of the task that it runs a step of."""
        number: int = self._callback.__self__.number
        return number

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback!r} of {self.life.name}>"


class SimTimer(SimHandle, eq=False):
    """One callback at a moment, `when_ns` of true time; does what `asyncio.TimerHandle` does."""

    when_ns: int = 0
    _loop: Any = None

    def cancel(self) -> None:
        """Never run it."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None
            self._loop.timers_cancelled += 1

    def when(self) -> float:
        """When it is due, on the loop's clock as its life sees it."""
        seconds: float = (self.life.clock.now_ns() + (self.when_ns - self._loop.now)) / 1e9
        return seconds


class Numbers:
    """The counter behind the hashes; every world starts it anew."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin at 1."""
        self.next = itertools.count(1).__next__


NUMBERS: Final = Numbers()


class SimFuture(asyncio.Future[Any]):
    """A future whose hash is its number."""

    __slots__ = ("_number",)

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            self._number: int = NUMBERS.next()
            return self._number


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number, and that knows its life."""

    __slots__ = ("context", "life", "number")

    def __init__(self, coro: Any, **options: Any) -> None:
        self.number = NUMBERS.next()
        context: Context | None = options.get("context")
        if context is None:
            context = options["context"] = copy_context()
        self.context = context
        self.life: Life = context.get(LIFE, ROOT)
        if options.get("name") is None:
            options["name"] = f"task-{self.number}"
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number

    def bury(self) -> None:
        """End its coroutine without another step of it counting for anything; for the end of a world."""
        self._log_destroy_pending = False
        coroutine: Any = self.get_coro()
        for _ in range(BURIALS_MAX):
            try:
                self.context.run(coroutine.close)
            except BaseException:  # noqa: S112  a `finally` that awaits, or fails for want of a world
                continue
            return
