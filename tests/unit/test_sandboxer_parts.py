"""The sandboxer's pure parts: specifications, messages, journal lines, mounts, the init image, memory of the dead."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.sandboxer import adoption, init_image, linux, process, protocol
from agents.sandboxer import journal_file as journal
from agents.sandboxer.attempt import card_fields
from agents.sandboxer.cgroups import detect
from agents.sandboxer.cgroups.base import Limits
from agents.sandboxer.cgroups.fake import Fake
from agents.sandboxer.output import Outputs, read_window
from agents.sandboxer.spec import BadSpec, Card, parse

SPEC: dict[str, Any] = {
    "allocation": "default/web.0",
    "epoch": 5,
    "attempt": 1,
    "job": "default/web",
    "command": ["sleep", "9"],
    "env": {"A": "b"},
    "cpu_millicores": 100,
    "memory_bytes": 1 << 20,
    "pids": 4,
    "grace_ms": 1000,
    "on_disconnect": "keep",
    "network": "bridge",
    "ports": [[8080, 80]],
}


def test_every_field_of_the_protocol_is_a_field_of_a_specification() -> None:
    assert set(protocol.SPEC_FIELDS) == set(SPEC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allocation", "../etc"),
        ("allocation", "a_b"),
        ("allocation", "x" * 300),
        ("allocation", 7),
        ("epoch", 0),
        ("epoch", True),
        ("epoch", "5"),
        ("epoch", 1 << 70),
        ("command", []),
        ("command", [""]),
        ("command", "sleep"),
        ("command", ["a\0b"]),
        ("command", ["x" * (200 << 10)]),
        ("command", ["\ud800"]),
        ("env", {"A=B": "c"}),
        ("env", {"": "c"}),
        ("env", {"A": 1}),
        ("env", None),
        ("memory_bytes", -1),
        ("memory_bytes", 1.5),
        ("grace_ms", -1),
        ("on_disconnect", "maybe"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(BadSpec, match=field):
        parse({**SPEC, field: value})


@pytest.mark.parametrize("value", [None, [], "spec", 5])
def test_a_specification_is_an_object(value: object) -> None:
    with pytest.raises(BadSpec):
        parse(value)


def test_the_digest_covers_every_field_and_no_order() -> None:
    digest = parse(SPEC).card.digest
    assert parse(dict(reversed(SPEC.items()))).card.digest == digest
    for field, value in {"epoch": 6, "command": ["sleep", "8"], "env": {}, "pids": 5, "grace_ms": 999}.items():
        assert parse({**SPEC, field: value}).card.digest != digest


JSON = st.dictionaries(st.text(max_size=10), st.integers() | st.text(max_size=20) | st.lists(st.booleans()), max_size=5)


@given(message=JSON)
def test_messages_survive_the_wire(message: dict[str, Any]) -> None:
    message.pop("memfd", None)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        protocol.send(left, protocol.encode(message))
        assert protocol.receive(right) == message


def test_a_large_message_travels_by_memfd_and_leaves_no_descriptor() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        before = len(os.listdir("/proc/self/fd"))
        message = {"text": "x" * (1 << 20)}
        protocol.send(left, protocol.encode(message))
        assert protocol.receive(right) == message
        assert len(os.listdir("/proc/self/fd")) == before
        with pytest.raises(protocol.ProtocolError):
            protocol.send(left, b"x" * (protocol.MEMFD_BYTES_MAX + 1))


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b'{"memfd": 5}', b"\xff", b"[" * 60_000])
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.send(data)
        with pytest.raises(protocol.ProtocolError):
            protocol.receive(right)


@pytest.mark.parametrize("size", [-1, 0, 10, 1 << 40, "5", None])
def test_a_memfd_message_that_lies_about_its_size_is_refused(size: object) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = os.memfd_create("test")
    os.write(fd, b"{}")
    with left, right:
        socket.send_fds(left, [protocol.encode({"memfd": size})], [fd])
        os.close(fd)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(protocol.ProtocolError):
            protocol.receive(right)
        assert len(os.listdir("/proc/self/fd")) == before


RECORDS = st.lists(JSON, max_size=8)


@given(records=RECORDS, cut=st.integers(1, 30))
def test_a_torn_tail_costs_only_its_own_record(records: list[dict[str, Any]], cut: int) -> None:
    lines = [journal.line_of(record) for record in records]
    assert journal.parse(b"".join(lines)) == journal.Contents(records, 0)
    if lines:
        torn = b"".join(lines)[: -min(cut, len(lines[-1]))]
        assert journal.parse(torn).records[: len(records) - 1] == records[:-1]
        assert journal.parse(torn).damaged == 0


@given(records=st.lists(JSON, min_size=2, max_size=6), where=st.data())
def test_damage_in_the_middle_costs_one_record_and_is_counted(records: list[dict[str, Any]], where: Any) -> None:
    lines = [journal.line_of(record) for record in records]
    victim = where.draw(st.integers(0, len(lines) - 2))
    at = where.draw(st.integers(0, len(lines[victim]) - 2))
    damaged = bytearray(lines[victim])
    damaged[at] ^= 1
    if damaged[at] == ord("\n"):
        return
    contents = journal.parse(b"".join([*lines[:victim], bytes(damaged), *lines[victim + 1 :]]))
    assert contents.damaged == 1
    assert contents.records == records[:victim] + records[victim + 1 :]


MOUNTINFO = """\
25 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:2 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/my\\040cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_mounts_are_found_however_they_are_joined() -> None:
    mounts = detect.parse_mounts(MOUNTINFO)
    assert mounts.v2 == "/sys/fs/cgroup/unified"
    assert mounts.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/my cgroup/pids",
    }


def test_the_tree_stays_below_its_root() -> None:
    assert detect.tree_name(None, "dev", "a1") == "skerry-dev-a1"
    assert detect.tree_name("/my.slice/", "dev", "a1") == "my.slice/skerry-dev-a1"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_init_image_is_a_whole_elf_executable(machine: str) -> None:
    image = init_image.elf(machine)
    assert image is not None
    assert image[:4] == b"\x7fELF"
    entry, program_headers = struct.unpack_from("<QQ", image, 24)
    file_size, memory_size = struct.unpack_from("<QQ", image, program_headers + 32)
    assert file_size == memory_size == len(image)
    assert entry == 0x40_0000 + 64 + 56
    assert init_image.elf("vax") is None


def test_the_init_image_waits_until_it_is_killed() -> None:
    image = init_image.memory_file()
    pid = os.fork()
    if pid == 0:
        init_image.run(image)
    os.close(image)
    pidfd = os.pidfd_open(pid)
    try:
        while True:
            stat = linux.process_stat(pid)
            assert stat is not None
            assert not stat.zombie, "it ended"
            if not os.readlink(f"/proc/{pid}/exe").endswith("python3.11") and stat.state == "S":
                break
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("said", "means"),
    [(b".", ""), (b"", None), (b'.{"why":"executing: no"}', "executing: no"), (b'{"why":"joining"}', "joining")],
)
def test_what_a_child_reports_before_exec(said: bytes, means: str | None) -> None:
    assert process.read_report(said) == means


def test_a_truncated_report_is_still_a_failure() -> None:
    assert process.read_report(b'.{"why":"exec') == "it failed before its program ran"


def test_output_is_punched_from_its_beginning_and_read_by_lasting_offsets(tmp_path: Path) -> None:
    outputs = Outputs(str(tmp_path), 64 << 10)
    first, second = outputs.open("x@1")
    path = str(tmp_path / "x@1" / "stdout")
    os.write(first, b"old\n" + b"x" * (128 << 10))
    outputs.bound_all()
    os.write(first, b"new\n")
    size = os.stat(path).st_size
    assert size == 4 + (128 << 10) + 4
    assert os.stat(path).st_blocks * 512 <= 64 << 10
    data, offset, told = read_window(path, 0, 1 << 20)
    assert told == size
    assert (offset + len(data), data[-4:]) == (size, b"new\n")
    assert len(data) >= 32 << 10
    assert read_window(path, size, 10) == (b"", size, size)
    assert read_window(path, size + 100, 4)[1] <= size
    outputs.discard("x@1")
    assert not os.path.exists(path)
    os.close(first)
    os.close(second)


CARD = Card("default/web.0", 5, 1, "default/web", 1000, "keep", "00ff")
BOOT = "boot-1"


@pytest.fixture
def groups(tmp_path: Path) -> Fake:
    backend = Fake(str(tmp_path / "groups"))
    backend.prepare()
    return backend


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        yield process
        process.kill()


def put(backend: Fake, processes: dict[str, int], boot: str = BOOT) -> None:
    backend.create(protocol.directory_name(*CARD.key), Limits(0, 0, 0), adoption.identity_bytes(CARD, boot, processes))


def intent(boot: str = BOOT) -> list[journal.Record]:
    return [{"k": "boot", "b": boot}, {"k": "intent", **card_fields(CARD)}]


def ticks(pid: int) -> int:
    stat = linux.process_stat(pid)
    assert stat is not None
    return stat.start_ticks


def close(recall: adoption.Recall) -> None:
    for found in recall.found.values():
        for fd in (found.pidfd, found.init_pidfd):
            if fd >= 0:
                os.close(fd)


def test_a_process_that_is_what_was_recorded_is_adopted(groups: Fake, sleeper: subprocess.Popen[bytes]) -> None:
    put(groups, {"pid": sleeper.pid, "ticks": ticks(sleeper.pid), "t": 9})
    recall = adoption.recall(groups, intent(), BOOT)
    [survivor] = recall.memory.survivors
    assert (survivor.status, survivor.pid, survivor.card) == (None, sleeper.pid, CARD)
    assert recall.found[CARD.key].pidfd >= 0
    close(recall)


def test_a_process_with_another_start_time_is_a_stranger(groups: Fake, sleeper: subprocess.Popen[bytes]) -> None:
    put(groups, {"pid": sleeper.pid, "ticks": ticks(sleeper.pid) - 1, "t": 9})
    recall = adoption.recall(groups, intent(), BOOT)
    [survivor] = recall.memory.survivors
    assert survivor.status is not None
    assert not survivor.status.known
    assert recall.found[CARD.key].pidfd == -1
    assert sleeper.poll() is None


@pytest.mark.parametrize(
    ("records", "reason", "detail"),
    [
        (intent(), "start-failed", adoption.NOT_STARTED),
        ([*intent(), {"k": "started", "a": "default/web.0", "e": 5, "p": 9}], "", adoption.UNSEEN),
        (intent("another-boot"), "", adoption.REBOOTED),
    ],
)
def test_what_is_concluded_without_a_cgroup(
    groups: Fake, records: list[journal.Record], reason: str, detail: str
) -> None:
    recall = adoption.recall(groups, records, BOOT)
    [survivor] = recall.memory.survivors
    assert survivor.status is not None
    assert (survivor.reason, survivor.status.detail, survivor.status.known) == (reason, detail, False)
    assert recall.memory.floors == {"default/web.0": 5}


def test_a_group_of_another_boot_or_without_identity_is_nobodys(groups: Fake) -> None:
    put(groups, {"pid": 1, "ticks": 1}, boot="another-boot")
    groups.create("x@1", Limits(0, 0, 0), b"{}")
    recall = adoption.recall(groups, [], BOOT)
    assert recall.memory.survivors == ()
    assert recall.leftovers == ("default_web.0@5", "x@1")


def test_recorded_exits_and_fences_survive_compaction_and_forgotten_ones_do_not(groups: Fake) -> None:
    ended = {"code": 3, "signal": None, "reason": "exited", "status_known": True, "detail": ""}
    exited = {"k": "exited", **card_fields(CARD), "p": 9, "t": 1, "o": 0, "x": ended}
    gone = {**card_fields(CARD), "a": "default/old.0", "e": 8}
    records = [*intent(), exited, {"k": "intent", **gone}, {"k": "exited", **gone, "p": 1, "t": 1, "o": 0, "x": ended}]
    records += [{"k": "forget", "a": "default/old.0", "e": 8}, {"k": "fence", "a": "default/f.0", "e": 3}, {"k": "?"}]
    for _ in range(2):  # what is written back says the same again
        recall = adoption.recall(groups, records, BOOT)
        [survivor] = recall.memory.survivors
        assert survivor.recorded
        assert survivor.status is not None
        assert (survivor.status.code, survivor.reason) == (3, "exited")
        assert recall.memory.floors == {"default/web.0": 5, "default/old.0": 8, "default/f.0": 3}
        records = json.loads(json.dumps(recall.records))
