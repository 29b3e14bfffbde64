"""The files of an agent's directory: its lock, and ``agent.json`` replaced whole.

Owns: how both are kept on a real disk.  Must not know: what ``agent.json`` says.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol, Self

from agents.errors import DirectoryInUse

LOCK_NAME = "agent.lock"
IDENTITY_NAME = "agent.json"


class HomeFiles(Protocol):
    """What `agents.home.Home` needs of a disk; a simulated one stands in."""

    def read(self) -> bytes | None:
        """Contents of ``agent.json``; None if there is none."""
        ...

    def replace(self, data: bytes) -> None:
        """Replace ``agent.json`` whole and durably: a crash leaves the old or the new one; OSError if it cannot be."""
        ...

    def close(self) -> None:
        """Let another agent in."""
        ...


class LockedDirectory:
    """A directory on disk, locked; the lock goes with the process, however it ends."""

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Create or open `directory`; raises DirectoryInUse while another agent is alive in it, or OSError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, directory)
        except BaseException:
            os.close(lock)
            raise
        return cls(directory, lock)

    def read(self) -> bytes | None:
        """See `HomeFiles.read`."""
        try:
            return (self._directory / IDENTITY_NAME).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, data: bytes) -> None:
        """See `HomeFiles.replace`."""
        temporary = self._directory / f".{IDENTITY_NAME}.new"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, self._directory / IDENTITY_NAME)
        parent = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def close(self) -> None:
        """See `HomeFiles.close`."""
        os.close(self._lock)


def _lock(handle: int, directory: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode("ascii", errors="replace").strip() or "unknown"
        raise DirectoryInUse(
            f"another agent (pid {owner}) works in {directory}",
            hint="stop that agent first, or give this one a directory of its own",
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
