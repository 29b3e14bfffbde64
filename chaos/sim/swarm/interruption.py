"""Ctrl-C, taken between seeds.

Owns: the signal's handler while a campaign runs.  Must not know: campaigns.

An exception in the middle of a simulated step could be caught by whatever code is simulated at that
moment, as a failure of its own.  So the first Ctrl-C is only noted, and a seed ends as it would; the
second one is an ordinary KeyboardInterrupt.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether an end was asked for."""

    def __init__(self) -> None:
        self.asked = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Note Ctrl-C until the end of the context; in another thread than the main one nothing can be noted."""
    noted = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, noted.note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
