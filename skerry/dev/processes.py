"""Child processes of the supervisor, held by pidfd.

Owns: starting, signalling and awaiting one child.  Must not know: the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from skerry.errors import DevError


class Child:
    """One supervised process; its output is appended to `log`."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.paused = False
        self._arguments = tuple(arguments)
        self._log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._pidfd = -1

    @property
    def pid(self) -> int | None:
        """The pid while it runs, else None."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code of the last run, negative for a signal."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start it, in a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone."""
        if self.running:
            raise DevError(f"{self.name} is running already", hint="kill it first")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "skerry",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._close_pidfd()
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(self._process.pid)
        self.paused = False

    def send(self, number: signal.Signals) -> None:
        """Signal it by pidfd; a process that has ended is left alone."""
        if self.running and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None, "wait() follows start()"
        return await self._process.wait()

    async def end(self, grace_s: float) -> None:
        """SIGTERM, and after `grace_s` SIGKILL."""
        if not self.running:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()

    def close(self) -> None:
        """Release the pidfd."""
        self._close_pidfd()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, for an error message."""
        try:
            text = self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
