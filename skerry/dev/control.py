"""The control socket of a development cluster: kill, start, pause, resume, stop, pids.

Owns: its protocol (one JSON object a line, each way) and both ends of it.
Must not know: what the processes are.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from skerry.errors import DevError

SOCKET = "control.sock"
LINE_BYTES_MAX = 64 << 10
ANSWER_S = 30.0

Handler = Callable[[str, str], Awaitable[dict[str, Any]]]


def short_path(directory: Path, descriptor: int) -> str:
    """A path to the socket that fits the kernel's 108 bytes, however long `directory` is."""
    long = str((directory / SOCKET).absolute())
    return long if len(long.encode()) < 100 else f"/proc/self/fd/{descriptor}/{SOCKET}"


class ControlServer:
    """Answers one request a line with what `handler(op, name)` returns."""

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._directory = directory
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; the socket is the owner's alone."""
        (self._directory / SOCKET).unlink(missing_ok=True)
        descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        before = os.umask(0o177)
        try:
            path = short_path(self._directory, descriptor)
            self._server = await asyncio.start_unix_server(self._serve, path, limit=LINE_BYTES_MAX)
        finally:
            os.umask(before)
            os.close(descriptor)

    async def close(self) -> None:
        """Stop listening and remove the socket, if it is ours."""
        if self._server is not None:
            self._server.close()
            (self._directory / SOCKET).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the caller went away, or sent a line past the limit
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            op, name = str(request["op"]), str(request.get("name", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"ok": False, "error": 'send one JSON object a line: {"op": "kill", "name": "n1"}'}
        try:
            return {"ok": True, **await self._handler(op, name)}
        except DevError as error:
            return {"ok": False, "error": error.message, "hint": error.hint}


class DevControl:
    """The other end: what scenarios and `skerry dev stop` use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def kill(self, name: str) -> None:
        """SIGKILL one process; returns once it is gone."""
        await self.ask("kill", name)

    async def start(self, name: str) -> None:
        """Start a process that is not running."""
        await self.ask("start", name)

    async def pause(self, name: str) -> None:
        """SIGSTOP one process."""
        await self.ask("pause", name)

    async def resume(self, name: str) -> None:
        """SIGCONT one process."""
        await self.ask("resume", name)

    async def pids(self) -> dict[str, int]:
        """Process name → pid, of those that run."""
        found: dict[str, int] = (await self.ask("pids"))["pids"]
        return found

    async def stop(self) -> None:
        """Ask the whole cluster to end; returns as soon as it begins to."""
        await self.ask("stop")

    async def ask(self, op: str, name: str = "") -> dict[str, Any]:
        """One request.

        Raises:
            DevError: nobody listens, or the supervisor refused.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._exchange({"op": op, "name": name})
        except (OSError, TimeoutError, ValueError) as error:
            raise DevError(
                f"the cluster of {self._directory} does not answer: {error or 'timed out'}",
                hint="is `skerry dev` running there?",
            ) from None
        if not answer.pop("ok", False):
            raise DevError(answer.get("error", "refused"), hint=answer.get("hint", ""))
        return answer

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            path = short_path(self._directory, descriptor)
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
        finally:
            os.close(descriptor)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()
