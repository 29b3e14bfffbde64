"""The sandboxer on this machine's own cgroups: limits, exits, isolation, stops."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.sandbox_client import SandboxClient, SandboxerRefused, SandboxerUnavailable, WorkloadRecord
from agents.sandboxer import protocol
from agents.sandboxer.cgroups import detect
from tests.integration.sandbox_rig import CLUSTER, Decoys, Rig, alive, assignment, children, trees, until

pytestmark = pytest.mark.root

V1_KINDS = ("hybrid", "v1")


def limit_file(record: WorkloadRecord, node: str, controller: str, file: str) -> str:
    tree = detect.tree_name(None, CLUSTER, node)
    name = protocol.directory_name(record.allocation, record.epoch)
    return Path(detect.read_mounts().v1[controller], tree, name, file).read_text().strip()


def output(record: WorkloadRecord, stream: str = "stdout") -> str:
    return Path(record.output, stream).read_text()


async def test_the_isolation_level_is_full_here(rig: Rig) -> None:
    assert rig.client.hello.isolation == "cgroup-hybrid + pid,mount,uts,ipc,user namespaces + seccomp + network bridge"
    assert rig.client.hello.isolation_why == ""


@pytest.mark.parametrize("kind", V1_KINDS)
async def test_limit_files_equal_the_spec(make_rig: Callable[..., Rig], kind: str) -> None:
    rig = make_rig(kind)
    client = await rig.connect()
    record = await client.start(assignment("default/web.0", "sleep", "60", cpu=250, memory=48 << 20, pids=7))
    assert limit_file(record, rig.node, "memory", "memory.limit_in_bytes") == str(48 << 20)
    assert limit_file(record, rig.node, "memory", "memory.memsw.limit_in_bytes") == str(48 << 20)
    assert limit_file(record, rig.node, "cpu", "cpu.cfs_quota_us") == "25000"
    assert limit_file(record, rig.node, "cpu", "cpu.cfs_period_us") == "100000"
    assert limit_file(record, rig.node, "pids", "pids.max") == "7"
    for controller in ("memory", "cpu", "cpuacct", "pids", "freezer"):
        assert limit_file(record, rig.node, controller, "cgroup.procs") == str(record.pid)


@pytest.mark.parametrize(
    ("script", "code", "number", "reason"),
    [
        ("exit 0", 0, None, "exited"),
        ("exit 3", 3, None, "exited"),
        ("exit 137", 137, None, "exited"),
        ("kill -TERM $$", None, 15, "signaled"),
        ("kill -SEGV $$", None, 11, "signaled"),
        ("kill -KILL $$", None, 9, "signaled"),
    ],
)
async def test_exit_codes_and_signals_are_told_apart(
    rig: Rig, script: str, code: int | None, number: int | None, reason: str
) -> None:
    await rig.client.start(assignment("default/b.0", "/bin/sh", "-c", script))
    ended = (await rig.exited("default/b.0")).exit
    assert ended is not None
    assert (ended.code, ended.signal, ended.reason, ended.status_known) == (code, number, reason, True)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("/no/such/program", "No such file or directory"),
        ("no-such-program-anywhere", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
    ],
)
async def test_a_program_that_cannot_be_executed_is_start_failed_with_the_reason(
    rig: Rig, command: str, says: str
) -> None:
    record = await rig.client.start(assignment("default/bad.0", command))
    assert record.state == "exited"
    assert record.exit is not None
    assert (record.exit.reason, record.exit.code, record.exit.status_known) == ("start-failed", None, False)
    assert says in record.exit.detail
    assert command in record.exit.detail
    await until(lambda: not os.path.exists(record.cgroup), "its cgroup is removed")


@pytest.mark.parametrize("kind", V1_KINDS)
async def test_a_workload_over_its_memory_is_killed_alone_and_reported_oom(
    make_rig: Callable[..., Rig], kind: str
) -> None:
    rig = make_rig(kind)
    client = await rig.connect()
    neighbour = await client.start(assignment("default/calm.0", "sleep", "60"))
    hog = "x=[]\nwhile 1: x.append(bytearray(1<<20))"
    await client.start(assignment("default/hog.0", "python3", "-c", hog, memory=32 << 20))
    record = await rig.event("exited", "default/hog.0")
    assert record.exit is not None
    assert (record.exit.reason, record.exit.signal, record.exit.code) == ("oom", 9, None)
    assert record.oom_kills >= 1
    assert alive(neighbour.pid)
    calm = await rig.record("default/calm.0")
    assert calm is not None
    assert (calm.state, calm.oom_kills) == ("running", 0)


async def test_an_oom_of_a_child_ends_the_whole_workload(rig: Rig) -> None:
    script = "python3 -c 'x=[]\nwhile 1: x.append(bytearray(1<<20))'; sleep 60"
    await rig.client.start(assignment("default/tree.0", "/bin/sh", "-c", script, memory=32 << 20))
    await rig.event("oom", "default/tree.0")
    record = await rig.event("exited", "default/tree.0")
    assert record.exit is not None
    assert record.exit.reason == "oom"


async def test_cpu_time_is_held_to_the_quota_and_usage_is_told(rig: Rig) -> None:
    await rig.client.start(assignment("default/burn.0", "/bin/sh", "-c", "while :; do :; done", cpu=100))
    began = time.monotonic()
    used = 0

    async def burnt() -> int:
        return (await rig.client.usage()).workloads["default/burn.0"][0]

    first = await burnt()
    while time.monotonic() - began < 1.5:
        await asyncio.sleep(0.1)
        used = await burnt() - first
    elapsed_ns = (time.monotonic() - began) * 1e9
    assert 0.02 * elapsed_ns < used < 0.2 * elapsed_ns
    usage = await rig.client.usage()
    cpu_ns, memory_bytes, pids = usage.workloads["default/burn.0"]
    assert 0 < memory_bytes <= 64 << 20
    assert pids == 1
    assert usage.node == (cpu_ns, memory_bytes)


async def test_a_stopped_workload_may_end_in_its_grace(rig: Rig) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    record = await rig.client.start(assignment("default/kind.0", "/bin/sh", "-c", script))
    await until(lambda: "up" in output(record), "it runs")
    await rig.client.stop("default/kind.0", 1, 20)
    ended = (await rig.exited("default/kind.0")).exit
    assert ended is not None
    assert (ended.code, ended.reason) == (5, "stopped")
    assert output(record) == "up\nbye\n"


async def test_a_workload_that_ignores_sigterm_is_killed_after_its_grace(rig: Rig) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    record = await rig.client.start(assignment("default/deaf.0", "/bin/sh", "-c", script))
    await until(lambda: "up" in output(record), "it runs")
    began = time.monotonic()
    await rig.client.stop("default/deaf.0", 1, 0.4)  # shorter than its own
    ended = (await rig.exited("default/deaf.0")).exit
    assert ended is not None
    assert (ended.signal, ended.reason) == (9, "stopped")
    assert time.monotonic() - began >= 0.4


async def test_a_stop_without_a_grace_uses_the_workloads_own(rig: Rig) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    record = await rig.client.start(assignment("default/own.0", "/bin/sh", "-c", script, grace_s=1))
    await until(lambda: "up" in output(record), "it runs")
    began = time.monotonic()
    await rig.client.stop("default/own.0", 1, None)
    ended = (await rig.exited("default/own.0")).exit
    assert ended is not None
    assert (ended.signal, ended.reason) == (9, "stopped")
    assert 1 <= time.monotonic() - began < 10


async def test_a_plain_program_ends_at_sigterm_without_waiting(rig: Rig) -> None:
    await rig.client.start(assignment("default/plain.0", "sleep", "60"))
    await rig.client.stop("default/plain.0", 1, 60)
    ended = (await rig.exited("default/plain.0")).exit
    assert ended is not None
    assert (ended.signal, ended.reason) == (15, "stopped")


async def test_what_the_main_process_leaves_behind_is_killed_with_it(rig: Rig) -> None:
    script = "setsid sleep 1000 & setsid sleep 1000 & echo ready; sleep 0.2; exit 4"
    record = await rig.client.start(assignment("default/mess.0", "/bin/sh", "-c", script))
    await until(lambda: "ready" in output(record), "it runs")
    left = children(record.pid)
    assert len(left) >= 2
    ended = (await rig.exited("default/mess.0")).exit
    assert ended is not None
    assert ended.code == 4
    assert not any(alive(pid) for pid in left)


@pytest.mark.parametrize("kind", V1_KINDS)
async def test_a_fork_bomb_is_held_by_its_pids_limit_and_killed(make_rig: Callable[..., Rig], kind: str) -> None:
    rig = make_rig(kind)
    client = await rig.connect()
    bomb = "import os\nwhile 1:\n try: os.fork()\n except OSError: pass"
    await client.start(assignment("default/bomb.0", "python3", "-S", "-c", bomb, pids=40, memory=256 << 20, cpu=800))
    deadline = time.monotonic() + 10
    pids = 0
    while pids < 35 and time.monotonic() < deadline:
        pids = (await client.usage()).workloads["default/bomb.0"][2]
    assert 35 <= pids <= 40
    await client.stop("default/bomb.0", 1, 0)
    ended = (await rig.exited("default/bomb.0")).exit
    assert ended is not None
    assert ended.reason == "stopped"


async def test_a_workload_sees_only_its_own_processes_and_gains_no_privileges(rig: Rig) -> None:
    script = "ls /proc | grep -c '^[0-9]*$'; echo $$; grep NoNewPrivs /proc/self/status; grep -c . /proc/1/cmdline"
    record = await rig.client.start(assignment("default/look.0", "/bin/sh", "-c", script))
    await rig.exited("default/look.0")
    count, own, privileges, _ = output(record).splitlines()
    assert int(count) <= 5
    assert own == "2"
    assert privileges.split() == ["NoNewPrivs:", "1"]


async def test_two_workloads_cannot_signal_each_other(rig: Rig) -> None:
    first = await rig.client.start(assignment("default/one.0", "sleep", "60"))
    second = await rig.client.start(assignment("default/two.0", "/bin/sh", "-c", f"kill -9 {first.pid}; echo $?"))
    await rig.exited("default/two.0")
    assert output(second) == "1\n"
    assert alive(first.pid)


async def test_the_environment_is_clean_and_names_the_fencing_token(rig: Rig) -> None:
    record = await rig.client.start(
        assignment("default/env.0", "/usr/bin/env", "-0", epoch=77, env={"COLOUR": "grün\nblau"}, network="host")
    )
    await rig.exited("default/env.0", 77)
    variables = dict(item.split("=", 1) for item in output(record).rstrip("\0").split("\0"))
    assert variables == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": f"{record.output}/work",
        "TMPDIR": f"{record.output}/work/tmp",
        "SKERRY_NODE": rig.node,
        "SKERRY_CLUSTER": CLUSTER,
        "SKERRY_ALLOCATION": "default/env.0",
        "SKERRY_EPOCH": "77",
        "SKERRY_FENCING_TOKEN": "0:77",
        "SKERRY_ATTEMPT": "1",
        "COLOUR": "grün\nblau",
    }


async def test_a_workload_inherits_no_descriptor_no_ignored_signal_and_no_mask(rig: Rig) -> None:
    script = "import os\nprint(sorted(os.listdir('/proc/self/fd'))[:4])\n"
    script += "print([l for l in open('/proc/self/status') if l[:6] in ('SigIgn','SigBlk')])"
    record = await rig.client.start(assignment("default/fds.0", "python3", "-S", "-c", script))
    await rig.exited("default/fds.0")
    descriptors, signals = output(record).splitlines()
    assert descriptors == "['0', '1', '2', '3']"  # 3 is the listing itself
    # Python ignores SIGPIPE and SIGXFSZ, nothing else is; 32 and 33 are the C library's own, beyond anyone's reach
    masks = [int(line.split(":")[1].strip(" \\n\t"), 16) & ~(3 << 31) for line in eval(signals)]
    assert masks == [0, (1 << 12) | (1 << 24)]


async def test_an_environment_of_megabytes_travels_by_memfd(rig: Rig) -> None:
    env = {f"V{number}": "x" * 30_000 for number in range(40)}
    record = await rig.client.start(assignment("default/big.0", "/bin/sh", "-c", "echo ${#V39}", env=env))
    ended = (await rig.exited("default/big.0")).exit
    assert ended is not None
    assert ended.code == 0
    assert output(record) == "30000\n"


async def test_fifty_starts_at_once_all_run(rig: Rig) -> None:
    async with asyncio.timeout(60):
        records = await asyncio.gather(
            *(rig.client.start(assignment(f"default/many.{index}", "sleep", "100")) for index in range(50))
        )
    assert {record.state for record in records} == {"running"}
    assert len({record.pid for record in records}) == 50
    assert len((await rig.client.usage()).workloads) == 50


async def test_a_start_is_idempotent_and_epochs_fence(rig: Rig) -> None:
    first = await rig.client.start(assignment("default/f.0", "sleep", "60", epoch=10))
    again = await rig.client.start(assignment("default/f.0", "sleep", "60", epoch=10))
    assert again.pid == first.pid
    for epoch, command, reason in ((9, "60", "stale-epoch"), (10, "61", "spec-changed"), (11, "60", "epoch-busy")):
        with pytest.raises(SandboxerRefused) as refused:
            await rig.client.start(assignment("default/f.0", "sleep", command, epoch=epoch))
        assert refused.value.reason == reason
    await rig.client.stop("default/f.0", 12, 0)
    await rig.exited("default/f.0", 10)
    for epoch in (10, 11, 12):
        if epoch == 10:
            assert (await rig.client.start(assignment("default/f.0", "sleep", "60", epoch=10))).state == "exited"
            continue
        with pytest.raises(SandboxerRefused) as refused:
            await rig.client.start(assignment("default/f.0", "sleep", "60", epoch=epoch))
        assert refused.value.reason == "stale-epoch"
    assert (await rig.client.start(assignment("default/f.0", "sleep", "60", epoch=13))).state == "running"


async def test_a_bad_specification_is_refused_with_the_field(rig: Rig) -> None:
    for bad, says in (
        (assignment("default/../x", "true"), "allocation"),
        (assignment("default/n.0", "a\0b"), "command"),
        (assignment("default/n.0", "true", epoch=0), "epoch"),
        (assignment("default/n.0", "true", env={"A=B": "c"}), "env"),
    ):
        if bad.allocation.endswith("../x"):
            bad = assignment("/etc", "true")
        with pytest.raises(SandboxerRefused) as refused:
            await rig.client.start(bad)
        assert refused.value.reason == "bad-request"
        assert says in str(refused.value)


async def test_a_second_sandboxer_of_a_directory_is_refused(rig: Rig) -> None:
    (rig.directory / protocol.SOCKET_NAME).rename(rig.directory / "aside")
    with pytest.raises(SandboxerUnavailable, match="another sandboxer runs"):
        await SandboxClient.connect(rig.directory, start_if_absent=True, options=rig.options)
    (rig.directory / "aside").rename(rig.directory / protocol.SOCKET_NAME)


async def test_garbage_closes_the_connection_and_hurts_nobody_else(rig: Rig) -> None:
    import socket

    for data in (
        b"\xff\x00garbage",
        b"[1,2]",
        b'{"op":"list","id":1}',
        b'{"op":"hello"}',
        b'{"memfd":5}',
        b"x" * 60_000,
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            sock.connect(str(rig.directory / protocol.SOCKET_NAME))
            sock.send(data)
            assert sock.recv(100) == b""
    assert await rig.client.list() == []


async def test_output_is_bounded_on_disk_and_offsets_stay(rig: Rig) -> None:
    from agents.sandboxer.output import read_window

    script = "i=0; while [ $i -lt 300 ]; do head -c 16384 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo; echo last"
    record = await rig.client.start(assignment("default/loud.0", "/bin/sh", "-c", script))
    await rig.exited("default/loud.0")
    path = Path(record.output, "stdout")
    await until(lambda: path.stat().st_blocks * 512 <= 1 << 20, "the oldest output is punched out")
    assert os.stat(path).st_size == 300 * 16384 + 6
    data, start, size = read_window(str(path), 0, 100)
    assert start >= size - (1 << 20)
    assert data == b"x" * 100
    assert read_window(str(path), size - 5, 100)[0] == b"last\n"


async def test_shutdown_stops_all_workloads_and_leaves_nothing(rig: Rig, other_cgroups: Decoys) -> None:
    pids = []
    for index in range(5):
        script = (
            "trap 'exit 0' TERM; while :; do sleep 0.05; done" if index % 2 else "trap '' TERM; sleep 100; sleep 100"
        )
        record = await rig.client.start(assignment(f"default/w.{index}", "/bin/sh", "-c", script, grace_s=1))
        pids.append(record.pid)
    sandboxer = rig.client.hello.pid
    pids += children(sandboxer)
    assert trees(rig.node) != []
    await rig.client.shutdown(stop_workloads=True)
    assert trees(rig.node) == []
    assert not (rig.directory / protocol.SOCKET_NAME).exists()
    await until(lambda: not any(alive(pid) for pid in [*pids, sandboxer]), "every process is gone")
    other_cgroups.check()


async def test_sigterm_shuts_down_in_the_same_way(rig: Rig) -> None:
    record = await rig.client.start(assignment("default/w.0", "sleep", "100"))
    sandboxer = rig.client.hello.pid
    pidfd = os.pidfd_open(sandboxer)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    os.close(pidfd)
    await until(lambda: not alive(sandboxer), "it ended")
    assert not alive(record.pid)
    assert trees(rig.node) == []
    assert not (rig.directory / protocol.SOCKET_NAME).exists()


async def test_without_cgroups_the_level_is_degraded_and_says_why(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("none")
    client = await rig.connect()
    assert client.hello.isolation == "degraded"
    assert "no cgroups" in client.hello.isolation_why
    await client.start(assignment("default/d.0", "/bin/sh", "-c", "ulimit -v; exit 6", memory=1 << 30))
    record = await rig.exited("default/d.0")
    assert record.exit is not None
    assert record.exit.code == 6
    assert output(record) == f"{(1 << 30) // 1024}\n"
