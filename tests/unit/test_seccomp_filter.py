"""The filter's program, run by a small interpreter of its instructions, against the table it was made of."""

from __future__ import annotations

import errno
import struct

import pytest

from agents.sandboxer import seccomp, syscalls

ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
ALLOW, KILL, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
MACHINES = pytest.mark.parametrize("machine", syscalls.MACHINES)


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the kernel would do with this call."""
    code = seccomp.assemble(machine)
    assert code is not None
    program = list(struct.iter_unpack("<HBBI", code))
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *padded)
    at, accumulator = 0, 0
    while True:
        operation, when_true, when_false, operand = program[at]
        at += 1
        if operation == 0x06:
            return int(operand)
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x05:
            at += operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[operation]
            at += when_true if holds else when_false


@MACHINES
def test_exactly_the_listed_numbers_are_allowed(machine: str) -> None:
    listed = set(syscalls.allowed(machine).values())
    checked = set(syscalls.numbers(syscalls.CHECKED, machine).values())
    absent = set(syscalls.numbers(syscalls.ABSENT, machine).values())
    assert not listed & (checked | absent)
    for number in set(range(syscalls.NEWEST + 1)) - checked - absent:
        assert verdict(machine, number) == (ALLOW if number in listed else ERRNO | errno.EPERM), number


@MACHINES
def test_newer_numbers_and_calls_whose_flags_are_out_of_sight_do_not_exist(machine: str) -> None:
    for number in (syscalls.NEWEST + 1, 600, 0x3FFF_FFFF, *syscalls.numbers(syscalls.ABSENT, machine).values()):
        assert verdict(machine, number) == ERRNO | errno.ENOSYS


@MACHINES
def test_calls_of_another_machine_kill(machine: str) -> None:
    for arch in (0x4000_0003, 0x4000_0028, *(ARCH[other] for other in ARCH if other != machine)):
        assert verdict(machine, 0, arch=arch) == KILL


def test_the_second_numbering_of_x86_64_does_not_exist() -> None:
    assert verdict("x86_64", 0x4000_0000 | 1) == ERRNO | errno.ENOSYS


@MACHINES
def test_clone_makes_processes_and_threads_but_no_namespaces(machine: str) -> None:
    clone = syscalls.CHECKED["clone"][syscalls.MACHINES.index(machine)]
    assert verdict(machine, clone, 17) == ALLOW
    assert verdict(machine, clone, 0x3D0F00) == ALLOW, "a thread, as libc makes it"
    for flag in (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000):
        assert verdict(machine, clone, flag | 17) == ERRNO | errno.EPERM


@MACHINES
def test_sockets_are_of_four_families_and_terminals_are_not_typed_into(machine: str) -> None:
    column = syscalls.MACHINES.index(machine)
    allowed = [family for family in range(50) if verdict(machine, syscalls.CHECKED["socket"][column], family) == ALLOW]
    assert allowed == list(seccomp.SOCKET_FAMILIES)
    ioctl = syscalls.CHECKED["ioctl"][column]
    assert verdict(machine, ioctl, 0, 0x5401) == ALLOW
    for request in seccomp.TERMINAL_INJECTION:
        assert verdict(machine, ioctl, 0, request) == ERRNO | errno.EPERM


def test_the_list_is_short_and_names_nothing_that_reaches_beyond_a_workload() -> None:
    names = set(syscalls.allowed("x86_64")) | set(syscalls.CHECKED)
    assert len(names) < 300
    assert set(syscalls.allowed("aarch64")) <= set(syscalls.allowed("x86_64"))
    beyond = "ptrace mount umount2 pivot_root setns unshare keyctl add_key bpf perf_event_open init_module reboot"
    beyond += " swapon process_vm_readv kexec_load userfaultfd open_by_handle_at iopl chroot sethostname settimeofday"
    assert not names & set(beyond.split())


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp.assemble("riscv64") is None
