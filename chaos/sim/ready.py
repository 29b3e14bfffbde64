"""In which order the loop runs what is ready.

Owns: the three policies.  Must not know: what the handles do, or time.

Each looks like the deque that asyncio keeps its ready handles in.  `fifo` is asyncio's own order.  The others reorder
*tasks* only: that plain callbacks run in the order of their `call_soon` is documented, that tasks wake in any order
is not.
"""

from __future__ import annotations

import heapq
from collections import deque
from random import Random
from typing import Any, Final, Literal, Protocol

from chaos.sim.handles import SimTask

Policy = Literal["fifo", "random", "pct"]

PCT_CHANGES: Final = 12
"""How often a run of `pct` lowers the priority of the task that would run next."""
PCT_STEPS: Final = 60_000
"""About as many steps as a run takes: the changes are spread over them."""
PCT_FAIR: Final = 200
"""After so many picks in a row without the queue running empty, the oldest goes first: strict priorities could
starve a task that others wait for actively."""


class Ready(Protocol):
    """Ready handles, as the loop and `BaseEventLoop.close` use them."""

    def append(self, handle: Any, /) -> None:
        """Add one."""
        ...

    def popleft(self) -> Any:
        """Take the next; IndexError when there is none."""
        ...

    def clear(self) -> None:
        """Drop all."""
        ...

    def __len__(self) -> int: ...


class RandomReady:
    """Any task, or the oldest plain callback, each as likely as the others that wait."""

    __slots__ = ("_plain", "_random", "_tasks")

    def __init__(self, dice: Random) -> None:
        self._random = dice.random
        self._tasks: list[Any] = []
        self._plain: deque[Any] = deque()

    def append(self, handle: Any, /) -> None:
        """Add one."""
        if getattr(handle._callback, "__self__", None).__class__ is SimTask:  # `steps_task`, without a call
            self._tasks.append(handle)
        else:
            self._plain.append(handle)

    def popleft(self) -> Any:
        """Take the next; IndexError when there is none."""
        tasks, plain = self._tasks, self._plain
        if not tasks:
            return plain.popleft()
        count = len(tasks)
        waiting = count + len(plain)
        if waiting == 1:
            return tasks.pop()
        place = int(self._random() * waiting)
        if place >= count:
            return plain.popleft()
        last = tasks.pop()
        if place == count - 1:
            return last
        chosen, tasks[place] = tasks[place], last
        return chosen

    def clear(self) -> None:
        """Drop all."""
        self._tasks.clear()
        self._plain.clear()

    def __len__(self) -> int:
        return len(self._tasks) + len(self._plain)


class PctReady:
    """Strict random priorities with a few changes (probabilistic concurrency testing).

    Every task gets a random priority when it first is ready; the highest runs.  At a few random steps the one that
    would run is put below all others.  Plain callbacks share one priority in the middle, so that their order stays.
    """

    __slots__ = ("_changes", "_heap", "_lowest", "_number", "_picks", "_priorities", "_random", "_streak")

    def __init__(self, dice: Random) -> None:
        self._random = dice.random
        self._heap: list[tuple[float, int, Any]] = []
        self._priorities: dict[int, float] = {}
        self._changes = sorted((dice.randrange(PCT_STEPS) for _ in range(PCT_CHANGES)), reverse=True)
        self._lowest = 1.0
        self._number = 0
        self._picks = 0
        self._streak = 0

    def append(self, handle: Any, /) -> None:
        """Add one."""
        self._number += 1
        if handle.steps_task():
            number = handle.task_number()
            priority = self._priorities.get(number)
            if priority is None:
                priority = self._priorities[number] = self._random()
        else:
            priority = 0.5
        heapq.heappush(self._heap, (priority, self._number, handle))

    def popleft(self) -> Any:
        """Take the next; IndexError when there is none."""
        heap = self._heap
        if len(heap) <= 1:
            self._streak = 0
            return heap.pop()[2]
        self._picks += 1
        self._streak += 1
        if self._streak % PCT_FAIR == 0:
            oldest = min(heap, key=lambda each: each[1])
            heap.remove(oldest)
            heapq.heapify(heap)
            return oldest[2]
        if self._changes and self._picks >= self._changes[-1]:
            self._changes.pop()
            self._lower()
        return heapq.heappop(heap)[2]

    def clear(self) -> None:
        """Drop all."""
        self._heap.clear()
        self._priorities.clear()

    def __len__(self) -> int:
        return len(self._heap)

    def _lower(self) -> None:
        """Put the task that would run next below all others."""
        _, number, handle = self._heap[0]
        if handle.steps_task():
            self._lowest += 1.0
            self._priorities[handle.task_number()] = self._lowest
            heapq.heapreplace(self._heap, (self._lowest, number, handle))


def ready_queue(policy: Policy, dice: Random) -> Ready:
    """The queue of that policy; only `fifo` throws no dice."""
    if policy == "fifo":
        return deque()
    if policy == "random":
        return RandomReady(dice)
    assert policy == "pct", f"there is no policy {policy!r}"
    return PctReady(dice)
