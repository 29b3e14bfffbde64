"""Having finished jobs forgotten in time, on the leader.

Owns: when the state is asked for garbage.  Must not know: what garbage is (`scheduler.state.collecting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from raft.errors import SkerryError
from scheduler.commands import encode
from scheduler.proposals import Consensus
from scheduler.state import State
from scheduler.state.collecting import due
from scheduler.state.results import CollectResult

LOOK_S = 60.0
PROPOSE_S = 10.0


class Log(Protocol):
    """The part of a logger that is used."""

    def info(self, event: str, **fields: Any) -> Any:
        """Say what happened."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Say that something is odd."""
        ...


class Collector:
    """One replica's collector.

    Args:
        consensus: this replica's driver.
        state: replicated state, read-only here.
        wall_ms: Unix milliseconds.
        look_s: seconds between looks.
    """

    def __init__(
        self, *, consensus: Consensus, state: State, wall_ms: Callable[[], int], log: Log, look_s: float = LOOK_S
    ) -> None:
        self._consensus = consensus
        self._state = state
        self._wall_ms = wall_ms
        self._log = log
        self._look_s = look_s

    async def run(self) -> None:
        """Collect while this replica leads, until cancelled."""
        while True:
            while (command := due(self._state.books, self._wall_ms())) is not None:
                try:
                    done = await self._consensus.propose(encode(command), timeout_s=PROPOSE_S)
                except SkerryError as error:
                    self._log.warning("finished jobs were not collected", code=error.code, why=error.message)
                    break
                if isinstance(done.result, CollectResult):
                    self._log.info("collected finished jobs", jobs=len(done.result.jobs), index=done.index)
            await asyncio.sleep(self._look_s)
