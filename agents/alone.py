"""Awaiting work that may fail at the very moment in which its waiter is cancelled.

Owns: that such a cancellation is not lost.  Must not know: what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def alone(work: Coroutine[Any, Any, T]) -> T:
    """The work's result, from a task of its own; for loops that go on when it has failed.

    A TaskGroup that is cancelled while one of its tasks fails raises the failure, and the cancellation is forgotten
    (nor does ``Task.cancelling`` tell: a failure alone leaves it above zero).  A loop that takes the failure for the
    end of this round would then go round for ever, and whoever cancelled it waits.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it failed as well; that does not matter any more
        raise
    return task.result()
