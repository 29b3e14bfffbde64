"""The filter on a workload's system calls: assembled here, installed just before its program.

Owns: the BPF program, and installing it.  Must not know: which calls are allowed (`syscalls`), or what runs.

The program first refuses another machine's calls (32-bit ones would pass under other numbers), then searches the
allowed numbers as a balanced tree of ranges, so a call costs about a dozen instructions.  Refused is EPERM; a call
that may be newer than our list is ENOSYS.  Namespaces cannot be made: neither `clone` with their flags, nor unshare.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Sequence
from typing import Final

from agents.sandboxer import linux, syscalls

_AUDIT_ARCH: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT: Final = 0x4000_0000
_RET_KILL: Final = 0x8000_0000
_RET_ALLOW: Final = 0x7FFF_0000
_RET_ERRNO: Final = 0x0005_0000
_LOAD, _JUMP, _EQUAL, _ABOVE, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16
NAMESPACE_FLAGS: Final = 0x7E02_0000
"""CLONE_NEW* of `clone`, all kinds."""
SOCKET_FAMILIES: Final = (1, 2, 10, 16)
"""Unix, IPv4, IPv6, netlink (read by libc to list addresses)."""
TERMINAL_INJECTION: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into a terminal that somebody else reads."""
_OPTION_FILTER: Final = 22
_MODE_FILTER: Final = 2

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, operand)"""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """An assembled program, ready to be installed by any child."""

    def __init__(self, code: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._buffer))

    def install(self) -> None:
        """Filter this process from now on, which gains no privileges any more.  Raises OSError."""
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.prctl(_OPTION_FILTER, _MODE_FILTER, ctypes.addressof(self._program))


def assemble(machine: str) -> bytes | None:
    """The program for `machine`; None for one whose numbers we do not know."""
    if machine not in _AUDIT_ARCH:
        return None
    program = [_load(_AT_ARCH), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), _return(_RET_KILL), _load(_AT_NUMBER)]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32_BIT), _refuse(errno.ENOSYS)]
    checked = syscalls.numbers(syscalls.CHECKED, machine)
    for name, check in (("clone", _check_clone()), ("socket", _check_socket()), ("ioctl", _check_ioctl())):
        program += [(_EQUAL, 0, len(check), checked[name]), *check]
    for number in sorted(syscalls.numbers(syscalls.ABSENT, machine).values()):
        program += [(_EQUAL, 0, 1, number), _refuse(errno.ENOSYS)]
    program += [(_ABOVE, 0, 1, syscalls.NEWEST), _refuse(errno.ENOSYS)]
    program += _search(_ranges(sorted(syscalls.allowed(machine).values())))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def filter_here() -> Filter | None:
    """The filter for this machine, if it is known."""
    code = assemble(platform.machine())
    return None if code is None else Filter(code)


def works() -> str:
    """Try it in a child; "" or why workloads cannot be filtered."""
    code = filter_here()
    if code is None:
        return f"no table of system calls for {platform.machine()}"
    return linux.tried(code.install)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as (first, last) without gaps."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _search(ranges: list[tuple[int, int]]) -> list[Instruction]:
    """Allow what is in `ranges`, refuse the rest; each branch ends in a return."""
    if len(ranges) == 1:
        first, last = ranges[0]
        return [(_AT_LEAST, 0, 1, first), (_ABOVE, 0, 1, last), _refuse(errno.EPERM), _return(_RET_ALLOW)]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return [(_AT_LEAST, 0, 1, ranges[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]


def _check_clone() -> list[Instruction]:
    return [_argument(0), (_ANY_BIT, 0, 1, NAMESPACE_FLAGS), _refuse(errno.EPERM), _return(_RET_ALLOW)]


def _check_socket() -> list[Instruction]:
    count = len(SOCKET_FAMILIES)
    tests = [(_EQUAL, count - place, 0, family) for place, family in enumerate(SOCKET_FAMILIES)]
    return [_argument(0), *tests, _refuse(errno.EAFNOSUPPORT), _return(_RET_ALLOW)]


def _check_ioctl() -> list[Instruction]:
    count = len(TERMINAL_INJECTION)
    tests = [(_EQUAL, count - place, 0, request) for place, request in enumerate(TERMINAL_INJECTION)]
    return [_argument(1), *tests, _return(_RET_ALLOW), _refuse(errno.EPERM)]


def _argument(place: int) -> Instruction:
    """Load the low half of an argument; the kernel takes no more of those that are checked."""
    return _load(_AT_ARGUMENTS + 8 * place)


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _return(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _refuse(number: int) -> Instruction:
    return _return(_RET_ERRNO | number)
