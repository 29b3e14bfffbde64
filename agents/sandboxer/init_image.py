"""The smallest init: a program that waits for ever.

Owns: its machine code, and running it.  Must not know: what lives in its namespace.

A forked Python that waits would keep copies of the sandboxer's memory alive, one per workload.
This image is one page: it calls ppoll(NULL, 0, NULL, NULL) in a loop.  Orphans reap themselves,
since the process ignored SIGCHLD before exec and exec keeps that.

The init stays in the node's mount namespace, and its workload sees it as /proc/1.  So it must be closed to its own
user: nobody may read the image, which makes the kernel treat whoever runs it as not dumpable (execve(2), ptrace(2)),
and ``/proc/1/root``, a way to the node's writable /proc/sys and cgroups, belongs to who may trace it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import struct
from typing import Final, NoReturn

_BASE: Final = 0x40_0000
_HEADER_BYTES: Final = 64 + 56
_ELF_MACHINE: Final = {"x86_64": 62, "aarch64": 183}
_CODE: Final = {
    # xor edi,edi; xor esi,esi; xor edx,edx; xor r10d,r10d; mov eax,271 (ppoll); syscall; jmp back
    "x86_64": bytes.fromhex("31ff 31f6 31d2 4531d2 b80f010000 0f05 ebee"),
    # mov x0..x3,#0; mov x8,#73 (ppoll); svc #0; b back
    "aarch64": bytes.fromhex("000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17"),
}
_MFD_EXEC: Final = 0x10
EXECUTE_ONLY: Final = 0o111


def elf(machine: str) -> bytes | None:
    """A static ELF executable for `machine`, or None for one we have no code for."""
    code = _CODE.get(machine)
    if code is None:
        return None
    size = _HEADER_BYTES + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    entry = _BASE + _HEADER_BYTES
    header = struct.pack("<HHIQQQIHHHHHH", 2, _ELF_MACHINE[machine], 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    readable_executable, page = 5, 0x1000
    segment = struct.pack("<IIQQQQQQ", 1, readable_executable, 0, _BASE, _BASE, size, size, page)
    return identity + header + segment + code


def memory_file() -> int:
    """Descriptor of the image in memory; -1 where it cannot be had."""
    image = elf(platform.machine())
    if image is None:
        return -1
    for flags in (os.MFD_CLOEXEC | _MFD_EXEC, os.MFD_CLOEXEC):
        try:
            fd = os.memfd_create("skerry", flags)
        except OSError:
            continue
        os.write(fd, image)
        read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.fchmod(fd, EXECUTE_ONLY)
        os.close(fd)
        return read_only
    return -1


def run(image: int, keep: int = -1) -> NoReturn:
    """Become the image; without one wait here, with every descriptor closed but `keep`."""
    if image >= 0:
        with contextlib.suppress(OSError):
            os.execve(image, ["skerry-init"], {})  # noqa: S606 - our own code
    if keep >= 0:
        os.dup2(keep, 3)
    os.closerange(3 + (keep >= 0), os.sysconf("SC_OPEN_MAX"))
    while True:
        signal.pause()
