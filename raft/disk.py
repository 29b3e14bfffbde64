"""The real disk: one directory of files through the operating system.

Owns: positioned writes, `fdatasync`, the directory's `fsync`, the lock, the directory's
identity.  Must not know: what the files mean.

Every write is complete or an OSError; nothing is retried here, because after a failed sync
the kernel may have dropped the bytes it could not write and a second sync would lie.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from raft.errors import StoreError, StoreLocked

LOCK_NAME = "lock"
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700


def free_name(name: str, taken: Sequence[str]) -> str:
    """`name`, or `name` with the first number that makes it none of `taken`."""
    numbered = (name if number == 0 else f"{name}.{number}" for number in range(len(taken) + 1))
    return next(each for each in numbered if each not in taken)


class RealFile:
    """One open file; satisfies `raft.protocols.File`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`; raises OSError."""
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):  # a short write: the next one says why, or goes on
            written += os.pwrite(self._descriptor, data[written:], offset + written)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes; shorter only at the end of the file."""
        parts: list[bytes] = []
        while length > 0:
            part = os.pread(self._descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def size(self) -> int:
        """Current size in bytes."""
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Return once all written data, and the size needed to read it, is durable."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Release the descriptor; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealDisk:
    """One directory; satisfies `raft.protocols.Disk`.  Made, with its parents, if it is missing.

    Raises:
        StoreError: the path cannot be made or is no directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=_DIRECTORY_MODE)
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(
                f"the data directory {directory} cannot be opened: {error.strerror}",
                hint="give a directory that this user may create and write",
            ) from error
        self._lock = -1

    def open(self, name: str, *, create: bool = False) -> RealFile:
        """Open for reading and writing; FileNotFoundError unless it exists or `create`."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        return RealFile(os.open(name, flags, _FILE_MODE, dir_fd=self._descriptor))

    def names(self) -> list[str]:
        """All plain file names but the lock's, sorted."""
        with os.scandir(self._descriptor) as found:
            return sorted(item.name for item in found if item.name != LOCK_NAME and item.is_file(follow_symlinks=False))

    def rename(self, old: str, new: str) -> None:
        """Atomically replace `new` by `old`; durable after `sync_directory`."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file; durable after `sync_directory`."""
        os.unlink(name, dir_fd=self._descriptor)

    def set_aside(self, name: str, folder: str) -> None:
        """Move a file into the sub-directory `folder`; a name taken there gets a number; durable after a sync."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, _DIRECTORY_MODE, dir_fd=self._descriptor)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            taken = os.listdir(descriptor)
            os.rename(name, free_name(name, taken), src_dir_fd=self._descriptor, dst_dir_fd=descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self) -> None:
        """Make creations, renames and removals durable."""
        os.fsync(self._descriptor)

    def inode(self) -> str:
        """``file system:inode`` of the directory; a copy has another one.

        The file system's own id outlives a reboot on ext4 and btrfs; the device's number, which may not, stands in
        where there is none.
        """
        status = os.fstat(self._descriptor)
        file_system = os.fstatvfs(self._descriptor).f_fsid or status.st_dev
        return f"{file_system:x}:{status.st_ino:x}"

    def lock(self) -> None:
        """Take the directory exclusively until `close` or the end of the process.

        Raises:
            StoreLocked: another process has it.
        """
        descriptor = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE, dir_fd=self._descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreLocked(
                f"the data directory {self.directory} is in use by another process",
                hint="stop that replica first, or give this one its own --dir",
            ) from error
        self._lock = descriptor

    def close(self) -> None:
        """Release the lock and the directory; harmless when repeated."""
        for descriptor in (self._lock, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._descriptor = -1
