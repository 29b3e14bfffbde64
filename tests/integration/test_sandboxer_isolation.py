"""What a workload may and what it sees: nothing of the node's privileges, nothing of its neighbours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.sandbox_client import WorkloadRecord
from tests.integration.sandbox_rig import Rig, assignment, until

pytestmark = pytest.mark.root

SYSTEM_PYTHON = "/usr/bin/python3"

PRIVILEGED = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
CALLS = {
    "ptrace": (101, 0, 0, 0, 0), "mount": (165, b"none", b"/mnt", b"tmpfs", 0, None), "umount2": (166, b"/proc", 2),
    "keyctl": (250, 0, 0, 0, 0), "add_key": (248, b"user", b"k", b"v", 1, -3), "bpf": (321, 0, None, 0),
    "perf_event_open": (298, None, 0, -1, -1, 0), "unshare": (272, 0x10000000), "setns": (308, 0, 0),
    "clone newuser": (56, 0x10000000 | 17, 0, 0, 0, 0), "reboot": (169, 0, 0, 0, None), "swapon": (167, b"/x", 0),
    "init_module": (175, None, 0, b""), "process_vm_readv": (310, 1, None, 0, None, 0, 0), "chroot": (161, b"/"),
    "settimeofday": (164, None, None), "pivot_root": (155, b"/", b"/"), "open_by_handle_at": (304, -1, None, 0),
    "packet socket": (41, 17, 3, 0), "type into a terminal": (16, 0, 0x5412, b"x"), "userfaultfd": (323, 0),
    "clone3": (435, None, 0), "io_uring_setup": (425, 1, None), "unknown": (499,), "x32 getpid": (0x40000027,),
    "getpid": (39,),
}
for name, call in CALLS.items():
    result = libc.syscall(*[ctypes.c_long(part) if isinstance(part, int) else part for part in call])
    print(name, "=", errno.errorcode[ctypes.get_errno()] if result < 0 else "done", flush=True)
"""

ORDINARY = """
import asyncio, ctypes.util, multiprocessing, os, pathlib, signal, socket, sqlite3, subprocess, tempfile, threading
def square(x): return x * x
async def main():
    server = await asyncio.start_server(lambda r, w: (w.write(b"hi"), w.close()), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b"hi"
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"x"))[0] == b"x"
asyncio.run(main())
with multiprocessing.get_context("fork").Pool(2) as pool: assert pool.map(square, [2, 3]) == [4, 9]
threads = [threading.Thread(target=square, args=(1,)) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
with tempfile.TemporaryDirectory() as name:
    database = sqlite3.connect(pathlib.Path(name, "x.db")); database.execute("create table t (x)"); database.commit()
    os.rename(pathlib.Path(name, "x.db"), pathlib.Path(name, "y.db")); os.chmod(pathlib.Path(name, "y.db"), 0o600)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); signal.setitimer(signal.ITIMER_REAL, 0.01)
assert signal.sigwait([signal.SIGALRM]) == signal.SIGALRM
assert socket.getaddrinfo("localhost", 80)
print("ordinary", os.getpid() > 1)
"""


def said_by(record: WorkloadRecord) -> str:
    return "".join(Path(record.output, stream).read_text() for stream in ("stdout", "stderr"))


async def output_of(rig: Rig, allocation: str, *command: str, network: str = "none", code: int | None = 0) -> str:
    """Run a program to its end and return what it said."""
    record = await rig.client.start(assignment(allocation, *command, network=network, memory=256 << 20, pids=100))
    ended = await rig.exited(allocation)
    said = said_by(record)
    assert ended.exit is not None
    assert code is None or ended.exit.code == code, (ended.exit, said)
    return said


@pytest.mark.parametrize("network", ["host", "none", "bridge"])
async def test_a_workload_has_no_capability_and_gains_none(rig: Rig, network: str) -> None:
    shows = "grep -E '^Cap|NoNewPrivs|Seccomp:' /proc/self/status"
    said = await output_of(rig, "p/me.0", "/bin/sh", "-c", f"{shows}; hostname", network=network)
    fields = dict(line.split(":\t") for line in said.splitlines() if ":" in line)
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert fields == {**dict.fromkeys(sets, "0" * 16), "NoNewPrivs": "1", "Seccomp": "2"}
    assert said.splitlines()[-1] == "me-0"


async def test_calls_that_reach_beyond_a_workload_are_refused(rig: Rig) -> None:
    said = await output_of(rig, "p/calls.0", SYSTEM_PYTHON, "-S", "-c", PRIVILEGED)
    answers = dict(line.split(" = ") for line in said.splitlines())
    assert answers.pop("getpid") == "done"
    assert answers.pop("packet socket") == "EAFNOSUPPORT"
    absent = {name: answers.pop(name) for name in ("clone3", "io_uring_setup", "unknown", "x32 getpid")}
    assert set(absent.values()) == {"ENOSYS"}
    assert len(answers) == 20
    assert set(answers.values()) == {"EPERM"}, answers


async def test_the_kernels_settings_and_a_workloads_own_limits_are_read_only(rig: Rig) -> None:
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    tries = ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", limit, "/sys/kernel/uevent_helper"]
    script = "; ".join(f"if ( : >> {path} ); then echo WRITES {path}; fi" for path in tries)
    said = await output_of(rig, "p/settings.0", "/bin/sh", "-c", f"{script}; true")
    assert "WRITES" not in said
    assert said.count("Read-only file system") + said.count("Permission denied") >= 3


async def test_the_init_of_a_workload_is_no_way_to_the_nodes_own_files(rig: Rig) -> None:
    ways = ("root/proc/sys/kernel/core_pattern", "root/sys/fs/cgroup", "cwd/etc", "exe", "maps", "ns/mnt", "mem")
    script = "; ".join(f"cat /proc/1/{way} 2>&1 >/dev/null || true" for way in ways)
    said = (await output_of(rig, "p/init.0", "/bin/sh", "-c", script)).splitlines()
    assert [line.rpartition(": ")[2] for line in said] == ["Permission denied"] * len(ways)


async def test_two_workloads_neither_see_nor_signal_nor_share_memory_with_each_other(rig: Rig) -> None:
    name = f"skerry-{rig.node}"
    leaves = f"ipcmk -M 4096 >/dev/null; touch /dev/shm/{name}; hostname first; echo ready; exec sleep 100"
    first = await rig.client.start(assignment("p/first.0", "/bin/sh", "-c", leaves))
    await until(lambda: Path(first.output, "stdout").read_text() == "ready\n", "the first one has left its traces")
    shows = f"""ls -d /proc/[0-9]* | wc -l; kill -0 {first.pid} 2>/dev/null || echo no-such
        ls /dev/shm | wc -l; ipcs -m | grep -c 0x; hostname"""
    said = (await output_of(rig, "p/second.0", "/bin/sh", "-c", shows)).split()
    processes, *rest = said
    assert int(processes) <= 4, "init, the shell, ls and wc"
    assert rest == ["no-such", "0", "0", "second-0"]
    assert name not in os.listdir("/dev/shm")
    still = await rig.record("p/first.0")
    assert still is not None
    assert still.state == "running"


async def test_shells_interpreters_and_busybox_work_as_usual(rig: Rig) -> None:
    assert "ordinary True" in await output_of(rig, "p/ordinary.0", SYSTEM_PYTHON, "-c", ORDINARY)
    script = "yes | head -c 100000 | sha1sum | cut -c1-4; (sleep 0.05 &) ; date +%Y >/dev/null; seq 3 | sort -r | xargs"
    said = await output_of(rig, "p/shell.0", "/bin/bash", "-ec", script)
    assert said.splitlines()[-1] == "3 2 1"
    assert await output_of(rig, "p/busybox.0", "busybox", "sh", "-c", "echo a | busybox tr a b") == "b\n"


async def test_network_none_is_loopback_alone_and_its_low_ports_may_be_used(rig: Rig) -> None:
    program = (
        "import socket; print([name for _, name in socket.if_nameindex()]);"
        "s = socket.create_server(('127.0.0.1', 80)); c = socket.create_connection(('127.0.0.1', 80)); print('talks')"
    )
    said = await output_of(rig, "p/alone.0", SYSTEM_PYTHON, "-c", program)
    assert said.splitlines()[-1] == "talks"
    assert "eth" not in said
    assert "'lo'" in said


async def test_a_workload_cannot_order_its_own_sandboxer(rig: Rig) -> None:
    socket_path = rig.directory / "sandboxer.sock"
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5);"
        f"s.connect({str(socket_path)!r});"
        """s.send(b'{"op": "hello", "id": 1, "protocol": 2}'); print('answer', s.recv(4096))"""
    )
    said = await output_of(rig, "p/climber.0", SYSTEM_PYTHON, "-c", program, code=None)
    assert "incarnation" not in said
