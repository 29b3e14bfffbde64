"""What a replica does while its state is not to be used.

Owns: that nobody is served from a state that was given up: callers are refused, agents sent elsewhere, placing pauses.
Must not know: how states are compared, or how another one is fetched (`raft.digests`, `raft.refetch`).

Consensus itself holds back what it can: nothing is applied, no read is confirmed here, and a leader has handed over
or takes no proposals.  What remains is whoever reads the state directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from raft.errors import StateDiverged
from raft.status import Standing


class Log(Protocol):
    """The part of a logger that is used."""

    def error(self, event: str, **fields: Any) -> Any:
        """Say that something is wrong."""
        ...

    def info(self, event: str, **fields: Any) -> Any:
        """Say what happened."""
        ...


class Suspends(Protocol):
    """Whoever serves agents from the state."""

    async def suspend(self, why: str) -> None:
        """Serve nobody until `resume`."""
        ...

    def resume(self) -> None:
        """Serve again."""
        ...


class Guard:
    """Stands between the state of one replica and those who read it.

    Args:
        node: this replica's id.
        standing: what consensus says of the state now.
        sessions: the agents' sessions.
        pause: have the placer take a read barrier before it drafts again, which waits for a state that may be used.
    """

    def __init__(
        self, *, node: str, standing: Callable[[], Standing], sessions: Suspends, pause: Callable[[], None], log: Log
    ) -> None:
        self._node = node
        self._standing = standing
        self._sessions = sessions
        self._pause = pause
        self._log = log
        self._changed = asyncio.Event()
        if standing() is not Standing.OK:
            self.changed()

    def check(self) -> None:
        """Raises StateDiverged while the state here is not to be used."""
        if self._standing() is Standing.DIVERGED:
            raise StateDiverged(
                f"the state of replica {self._node} differs from a majority's and is being fetched anew",
                hint="ask another replica; `skerry status` shows the digests",
            )

    @property
    def alert(self) -> str:
        """What people should know, "" when all is well."""
        standing = self._standing()
        if standing is Standing.DIVERGED:
            return f"the state of {self._node} differs from a majority's and is being fetched anew"
        if standing is Standing.SPLIT:
            return "the replicas' states differ and no majority agrees: writes are halted"
        return ""

    def changed(self) -> None:
        """To be called whenever the standing changed."""
        if self._standing() is Standing.DIVERGED:
            self._pause()
        self._changed.set()

    async def run(self) -> None:
        """Send agents elsewhere, and take them back, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._standing() is Standing.OK:
                self._sessions.resume()
                self._log.info("the state is the same as a majority's")
            else:
                self._log.error(self.alert, code=StateDiverged.code)
            if self._standing() is Standing.DIVERGED:
                await self._sessions.suspend("the state of this replica is being fetched anew")
