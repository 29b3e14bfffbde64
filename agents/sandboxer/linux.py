"""System calls that Python 3.11 has no function for, and readings from /proc.

Owns: ctypes, constants of the kernel's interface, identities of processes.
Must not know: workloads, cgroups, journals.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000
MS_RDONLY: Final = 0x1
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
_SYS_MOUNT_SETATTR: Final = 442
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_RDONLY: Final = 0x1
_CAPABILITY_VERSION_3: Final = 0x2008_0522
TRIED_BYTES_MAX: Final = 4096
FALLOC_FL_KEEP_SIZE: Final = 0x1
FALLOC_FL_PUNCH_HOLE: Final = 0x2
PIDFD_INFO_EXIT: Final = 1 << 3
_PIDFD_INFO_BYTES: Final = 64
_PIDFD_GET_INFO: Final = (3 << 30) | (_PIDFD_INFO_BYTES << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT_CODE_AT: Final = 60


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int, more: int = 0) -> None:
    """prctl(2); raises OSError."""
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), zero, zero), f"prctl {option}")


def prctl_value(option: int, value: int) -> int:
    """prctl(2) whose answer is a number; negative where it is refused."""
    zero = ctypes.c_ulong(0)
    answer: int = _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)
    return answer


def set_name(name: str) -> None:
    """Name this process as `ps` shows it (15 bytes)."""
    _check(_libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0), "prctl PR_SET_NAME")


def unshare(flags: int) -> None:
    """unshare(2); raises OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2); raises OSError."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def sethostname(name: str) -> None:
    """sethostname(2); raises OSError."""
    data = name.encode()
    _check(_libc.sethostname(data, ctypes.c_size_t(len(data))), "sethostname")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2); raises OSError."""
    filesystem = None if kind is None else kind.encode()
    data = options.encode() if options else None
    result = _libc.mount(source.encode(), target.encode(), filesystem, ctypes.c_ulong(flags), data)
    _check(result, f"mount {target}")


def mount_read_only(target: str) -> None:
    """Make the mount at `target` and all below it read-only (Linux ≥ 5.12); raises OSError."""
    attributes = struct.pack("=4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = target.encode()
    call = ctypes.c_long(_SYS_MOUNT_SETATTR)
    size = ctypes.c_size_t(len(attributes))
    result = _libc.syscall(call, ctypes.c_int(_AT_FDCWD), path, ctypes.c_uint(_AT_RECURSIVE), attributes, size)
    _check(result, f"making {target} read-only")


def effective_capabilities() -> int:
    """This process's effective capabilities, one bit each; raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, data), "capget")
    return int(data[0]) | int(data[3]) << 32


def empty_capabilities() -> None:
    """Leave this process no capability, permitted, effective or inheritable; raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def tried(action: Callable[[], object]) -> str:
    """Do something in a child of this process that ends at once; "" or why it failed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            action()
            os.write(write, b"+")
        except BaseException as error:
            os.write(write, (str(error) or repr(error)).encode()[:TRIED_BYTES_MAX])
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read, "rb") as pipe:
        said = pipe.read(TRIED_BYTES_MAX).decode(errors="replace")
    return "" if said == "+" else said or "it was killed"


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free the blocks of a range; its size stays.  Raises OSError (EOPNOTSUPP on some file systems)."""
    flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    _check(_libc.fallocate(fd, flags, ctypes.c_int64(offset), ctypes.c_int64(length)), "fallocate")


def exit_status_of_pidfd(pidfd: int) -> int | None:
    """Wait status of a process that has been reaped, told to any holder of a pidfd (Linux ≥ 6.15).

    None: not reaped yet, or the kernel cannot tell.
    """
    buffer = bytearray(_PIDFD_INFO_BYTES)
    struct.pack_into("<Q", buffer, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    (mask,) = struct.unpack_from("<Q", buffer, 0)
    if not mask & PIDFD_INFO_EXIT:
        return None
    status: int = struct.unpack_from("<i", buffer, _PIDFD_INFO_EXIT_CODE_AT)[0]
    return status


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of /proc/PID/stat that identify a process."""

    pid: int
    name: str
    """Of the program, 15 bytes; also of a zombie."""
    state: str
    parent: int
    session: int
    start_ticks: int
    """Clock ticks since boot; with the boot id and the pid an identity."""
    wait_status: int
    """Of a zombie, visible to who may trace it; else 0."""

    @property
    def zombie(self) -> bool:
        """Ended, not reaped."""
        return self.state in "ZX"


def process_stat(pid: int | str) -> ProcessStat | None:
    """Read /proc/PID/stat; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except OSError:
        return None
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    return ProcessStat(
        pid=int(head.split(b" ", 1)[0]),
        name=head.partition(b"(")[2].decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        wait_status=int(fields[49]) if len(fields) > 49 else 0,
    )


def sees_less(pid: int) -> bool:
    """Whether a process lives in a PID namespace below ours, as workloads do, or is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino
    except PermissionError:
        return False  # more privileged than we are: no workload of ours
    except OSError:
        return True


def boot_id() -> str:
    """Random id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
