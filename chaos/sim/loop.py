"""An asyncio event loop in virtual time, whose order of steps a seed decides.

Owns: time, the ready queue, timers, and keeping dead and paused lives from running.
Must not know: what a host, a connection or a disk is.

Time is an integer of nanoseconds; it passes only when nothing is ready, straight to the next timer.  A loop that has
neither stops with a report of who waits for what (`chaos.sim.report`).
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, copy_context
from math import ceil
from random import Random
from typing import Any, Final

from chaos.sim.handles import SimFuture, SimHandle, SimTask, SimTimer
from chaos.sim.lives import LIFE, ROOT, Life
from chaos.sim.ready import Policy, ready_queue
from chaos.sim.report import Deadlock, Livelock, waiting_tasks

LIVELOCK_STEPS: Final = 1_000_000
"""So many steps without time passing are a livelock."""
_OWNERS: Final = ("handle", "task", "future")
COMPACT_AT: Final = 512
"""Cancelled timers are dropped from the heap when there are more than so many, and more than half of all."""


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one world.

    Args:
        policy: the order of what is ready.
        dice: for `policy`.
    """

    _stopping: bool

    def __init__(self, policy: Policy = "fifo", dice: Random | None = None) -> None:
        super().__init__()
        self.now = 0
        """True time in nanoseconds since the world began."""
        self.steps = 0
        """Callbacks run so far."""
        self.timers_cancelled = 0
        self.failures: list[tuple[int, str, str, BaseException | None]] = []
        """What no code caught: (time, life, message, exception)."""
        self.thread_delay: Callable[[], int] | None = None
        """While a simulated thread works: when the loop hears of what it hands over."""
        self.network: Any = None
        self._ready: Any = ready_queue(policy, dice or Random(0))  # noqa: S311  repeatable on purpose
        self._push = self._ready.append
        self._timers: list[tuple[int, int, SimTimer]] = []
        self._sequence = 0
        self._clock_resolution = 1e-9
        self.buried = False
        self.get_debug = (0).__bool__  # type: ignore[method-assign]  # every future asks; this one answers in C

    # -- asyncio's interface ----------------------------------------------------------------

    def time(self) -> float:
        """Seconds on the clock of the life that asks."""
        return LIFE.get().clock.now_ns() / 1e9

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> SimHandle:  # type: ignore[override]
        """Run `callback` in a later step."""
        if context is None:
            context = copy_context()
        handle = SimHandle(callback, args, context, context.get(LIFE, ROOT))
        self._push(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimHandle:
        """The same; from a simulated thread it takes its time."""
        if self.thread_delay is None:
            return self.call_soon(callback, *args, context=context)
        return self.at(self.thread_delay(), callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimTimer:
        """Run `callback` when `delay` seconds have passed on the clock of its life."""
        if context is None:
            context = copy_context()
        life = context.get(LIFE, ROOT)
        delay_ns = ceil(delay * 1e9)
        if life.clock.ppm:
            delay_ns = life.clock.true_delay_ns(delay_ns)
        return self._set_timer(self.now + delay_ns, callback, args, context, life)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimTimer:
        """Run `callback` not before `time()` is `when` for its life."""
        if context is None:
            context = copy_context()
        life = context.get(LIFE, ROOT)
        when_ns = ceil(when * 1e9)
        while when_ns / 1e9 < when:
            when_ns += 1  # who compares `time()` with `when` then must not find it too early, or it never ends
        delay_ns = life.clock.true_delay_ns(when_ns - life.clock.now_ns())
        return self._set_timer(self.now + delay_ns, callback, args, context, life)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught, with the life that it happened in."""
        if self.buried:
            return
        owners = [getattr(context.get(name), "life", None) for name in _OWNERS]
        life = next(filter(None, owners), LIFE.get())
        self.failures.append((self.now, life.name, str(context.get("message")), context.get("exception")))

    def create_future(self) -> asyncio.Future[Any]:
        """A future with a hash that repeats."""
        return SimFuture(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """A task with a hash that repeats."""
        return SimTask(coro, loop=self, **options)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run `func` in a later step: there are no threads here."""
        waiter = self.create_future()

        def work() -> None:
            if waiter.done():
                return
            try:
                result = func(*args)
            except BaseException as error:
                waiter.set_exception(error)
            else:
                waiter.set_result(result)

        self.call_soon(work)
        return waiter

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  asyncio's
        """There is none."""

    # -- true time, for the world's own parts -------------------------------------------------

    def at(self, when_ns: int, callback: Callable[..., object], *args: Any, context: Context | None = None) -> SimTimer:
        """Run `callback` at a true moment, for the life of `context`."""
        if context is None:
            context = copy_context()
        return self._set_timer(when_ns, callback, args, context, context.get(LIFE, ROOT))

    def at_root(self, when_ns: int, context: Context, callback: Callable[..., object], *args: Any) -> SimTimer:
        """Run `callback` at a true moment in `context`, even if its life is halted: the world acts, not the life."""
        self._sequence += 1
        timer = SimTimer(callback, args, context, ROOT, False, when_ns, self)
        heapq.heappush(self._timers, (when_ns, self._sequence, timer))
        return timer

    async def sleep_until(self, when_ns: int) -> None:
        """Return at a true moment."""
        if when_ns <= self.now:
            return
        waiter = self.create_future()
        timer = self.at(when_ns, _release, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    # -- lives --------------------------------------------------------------------------------

    def release(self, life: Life) -> None:
        """What was due while `life` was paused is ready now, in its order."""
        held, life.held = life.held, []
        for handle in held:
            self._push(handle)

    def bury(self) -> None:
        """End every coroutine, drop everything that waits, and close."""
        self.buried = True
        for task in sorted(asyncio.all_tasks(self), key=hash):
            if isinstance(task, SimTask):
                task.bury()
        self._ready.clear()
        self._timers.clear()
        self.failures.clear()
        self.close()

    # -- the inside ---------------------------------------------------------------------------

    def _set_timer(
        self, when_ns: int, callback: Callable[..., object], args: tuple[Any, ...], context: Context, life: Life
    ) -> SimTimer:
        self._sequence += 1
        timer = SimTimer(callback, args, context, life, False, when_ns, self)
        heapq.heappush(self._timers, (when_ns, self._sequence, timer))
        return timer

    def _run_once(self) -> None:
        """Run until stopped (one call of asyncio's is one turn; here it is all of them)."""
        pop = self._ready.popleft
        steps = self.steps
        limit = steps + LIVELOCK_STEPS
        try:
            while not self._stopping:
                try:
                    handle = pop()
                except IndexError:  # nothing is ready
                    handle = None
                if handle is None:
                    handle = self._advance()
                    limit = steps + LIVELOCK_STEPS
                if handle._cancelled:
                    continue
                if handle.life.halted:
                    _divert(handle)
                    continue
                steps += 1
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._failed(handle, error)
                if steps > limit:
                    raise Livelock(self.now, handle, waiting_tasks(self))
        finally:
            self.steps = steps

    def _advance(self) -> Any:
        """Nothing is ready: go to the next timer's moment, and return what comes first then."""
        if self.timers_cancelled > COMPACT_AT and self.timers_cancelled * 2 > len(self._timers):
            self._compact()
        timers = self._timers
        self._skip(timers)
        if not timers:
            raise Deadlock(self.now, waiting_tasks(self))
        when_ns, _, first = heapq.heappop(timers)
        if when_ns > self.now:
            self.now = when_ns
        if not timers or timers[0][0] > self.now:
            return first
        self._push(first)
        while timers and timers[0][0] <= self.now:
            self._push(heapq.heappop(timers)[2])
            self._skip(timers)
        return self._ready.popleft()

    def _skip(self, timers: list[tuple[int, int, SimTimer]]) -> None:
        """Drop what is cancelled, and bury what is dead, from the head of the heap."""
        while timers:
            timer = timers[0][2]
            if timer._cancelled:
                self.timers_cancelled -= 1
                heapq.heappop(timers)
            elif timer.life.dead:
                timer.life.graveyard.append(heapq.heappop(timers)[2])
            else:
                return

    def _compact(self) -> None:
        self._timers = [entry for entry in self._timers if not entry[2]._cancelled]
        heapq.heapify(self._timers)
        self.timers_cancelled = 0

    def _failed(self, handle: SimHandle, error: BaseException) -> None:
        if handle.life is ROOT:
            raise error  # the world or its harness is wrong: nothing that follows would mean anything
        self.call_exception_handler(
            {"message": f"exception in callback {handle!r}", "exception": error, "handle": handle}
        )

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


def _divert(handle: SimHandle) -> None:
    """Keep a handle of a life that must not run now, or never again."""
    life = handle.life
    (life.graveyard if life.dead else life.held).append(handle)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
