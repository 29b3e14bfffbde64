"""What every cgroup arrangement must do, in the standard library alone.

``conformance.py KIND DIRECTORY [--slow FACTOR]`` runs on this machine and inside the virtual machine alike, with
`agents.sandboxer` on the path.  It prints one line a case and ends with ``CONFORMANCE {json}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from agents.sandboxer import linux, protocol
from agents.sandboxer.cgroups import detect

CLUSTER = "conf"
KIND = "v2"
DIRECTORY = Path("/tmp")
SLOW = 1.0
PYTHON = ("/usr/bin/python3.11", "-S", "-E", "-c")
HOG = "x=[]\nwhile 1: x.append(bytearray(1<<20))"
BOMB = "import os\nwhile 1:\n try: os.fork()\n except OSError: pass"


class Client:
    """A blocking client of the sandboxer."""

    def __init__(self, directory: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(30 * SLOW)
        self.sock.connect(str(directory / protocol.SOCKET_NAME))
        self.number = 0
        self.events: list[dict[str, Any]] = []
        self.hello = self.ask("hello", protocol=protocol.PROTOCOL_VERSION)

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        self.number += 1
        protocol.send(self.sock, protocol.encode({"op": op, "id": self.number, **fields}))
        while True:
            message = protocol.receive(self.sock)
            assert message is not None, "the sandboxer closed the connection"
            if message.get("re") == self.number:
                return message
            self.events.append(message)

    def start(self, allocation: str, *command: str, **more: Any) -> dict[str, Any]:
        spec = {
            "allocation": allocation,
            "epoch": 1,
            "attempt": 1,
            "job": allocation.split(".")[0],
            "command": list(command),
            "env": {},
            "cpu_millicores": 0,
            "memory_bytes": 64 << 20,
            "pids": 32,
            "grace_ms": 2000,
            "on_disconnect": "keep",
            **more,
        }
        answer = self.ask("start", spec=spec)
        assert answer["ok"], answer
        record: dict[str, Any] = answer["record"]
        return record

    def record(self, allocation: str) -> dict[str, Any]:
        for record in self.ask("list")["records"]:
            if record["allocation"] == allocation:
                return dict(record)
        raise AssertionError(f"{allocation} is not listed")

    def exit_of(self, allocation: str) -> dict[str, Any]:
        wait(lambda: self.record(allocation)["state"] == "exited", f"{allocation} exited")
        return dict(self.record(allocation)["exit"])


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 20 * SLOW
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    stat = linux.process_stat(pid)
    return stat is not None and not stat.zombie


class Conformance(unittest.TestCase):
    """All cases share one sandboxer; one that ends it gets a new one in its place."""

    node: str
    directory: Path
    shared: Path
    """Open to workloads, who may not enter `directory`."""
    client: Client

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = f"c{os.getpid()}"
        cls.directory = Path(tempfile.mkdtemp(dir=DIRECTORY))
        cls.shared = Path(tempfile.mkdtemp())
        cls.shared.chmod(0o777)
        cls.launch()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.launch()
        cls.client.ask("shutdown", stop_workloads=True)
        cls.client.sock.close()
        shutil.rmtree(cls.shared)
        assert cls.trees() == [], cls.trees()

    def tearDown(self) -> None:
        self.launch()
        for record in self.client.ask("list")["records"]:
            key = {"allocation": record["allocation"], "epoch": record["epoch"]}
            self.client.ask("stop", grace_ms=0, **key)
            self.client.exit_of(record["allocation"])
            self.client.ask("forget", **key)

    @classmethod
    def launch(cls) -> None:
        """Connect anew, and start a sandboxer if there is none."""
        if hasattr(cls, "client"):
            cls.client.sock.close()
        try:
            cls.client = Client(cls.directory)
        except OSError:
            command = [sys.executable, "-S", "-s", "-m", "agents.sandboxer", "--detach", "--dir", str(cls.directory)]
            command += ["--node", cls.node, "--cluster", CLUSTER, "--cgroups", KIND]
            log = cls.directory / protocol.LOG_NAME
            with log.open("ab") as file:
                done = subprocess.run(command, stdout=file, stderr=file, timeout=60 * SLOW, check=False)
            assert done.returncode == 0, log.read_text()
            cls.client = Client(cls.directory)

    @classmethod
    def trees(cls) -> list[str]:
        mounts = detect.read_mounts()
        tree = detect.tree_name(None, CLUSTER, cls.node)
        points = sorted({*mounts.v1.values(), *([mounts.v2] if mounts.v2 else [])})
        return [f"{point}/{tree}" for point in points if os.path.isdir(f"{point}/{tree}")]

    def limit(self, allocation: str, v1_controller: str, v1_file: str, v2_file: str) -> str:
        mounts = detect.read_mounts()
        point, file = (mounts.v2, v2_file) if KIND == "v2" else (mounts.v1[v1_controller], v1_file)
        name = protocol.directory_name(allocation, 1)
        return Path(point, detect.tree_name(None, CLUSTER, self.node), name, file).read_text().strip()

    def test_isolation_is_full(self) -> None:
        level, _, network = self.client.hello["isolation"].rpartition(" ")
        assert level == f"cgroup-{KIND} + pid,mount,uts,ipc,user namespaces + seccomp + network"
        # The virtual machine's kernel has no bridge module loaded: that is said, and the rest is whole.
        why = self.client.hello["isolation_why"]
        assert (network, why) == ("bridge", "") or (network == "host" and why.startswith("no bridge network ("))

    def test_a_workload_has_no_privilege_and_sees_only_itself(self) -> None:
        shows = "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; hostname; ls -d /proc/[0-9]*"
        self.client.start("c9/me.0", "/bin/sh", "-c", shows, network="none")
        self.client.exit_of("c9/me.0")
        said = (self.directory / "allocations" / protocol.directory_name("c9/me.0", 1) / "stdout").read_text().split()
        assert [said[place] for place in range(1, 10, 2)] == ["0" * 16] * 5
        assert said[10:15] == ["NoNewPrivs:", "1", "Seccomp:", "2", "me-0"]
        assert said[15:17] == ["/proc/1", "/proc/2"]
        assert len(said) <= 18

    def test_limit_files_equal_the_spec(self) -> None:
        self.client.start("c1/w.0", "sleep", "100", cpu_millicores=250, memory_bytes=48 << 20, pids=7)
        assert self.limit("c1/w.0", "memory", "memory.limit_in_bytes", "memory.max") == str(48 << 20)
        assert self.limit("c1/w.0", "pids", "pids.max", "pids.max") == "7"
        quota = self.limit("c1/w.0", "cpu", "cpu.cfs_quota_us", "cpu.max")
        assert quota.split()[0] == "25000"
        if KIND == "v2":
            assert self.limit("c1/w.0", "", "", "memory.oom.group") == "1"
            assert self.limit("c1/w.0", "", "", "memory.swap.max") == "0"

    def test_cpu_is_throttled_and_usage_told(self) -> None:
        self.client.start("c2/burn.0", "/bin/sh", "-c", "while :; do :; done", cpu_millicores=200)
        before, began = self.client.ask("usage")["workloads"]["c2/burn.0"], time.monotonic_ns()
        time.sleep(2)
        after = self.client.ask("usage")["workloads"]["c2/burn.0"]
        share = (after[0] - before[0]) / (time.monotonic_ns() - began)
        assert share > 0.05
        assert share < 0.35
        assert after[1] > 0
        assert after[2] == 1

    def test_memory_hog_is_killed_alone_and_attributed(self) -> None:
        calm = self.client.start("c3/calm.0", "sleep", "100")
        self.client.start("c3/hog.0", *PYTHON, HOG, memory_bytes=32 << 20)
        ended = self.client.exit_of("c3/hog.0")
        assert (ended["reason"], ended["signal"], ended["status_known"]) == ("oom", 9, True)
        assert alive(calm["pid"])
        assert self.client.record("c3/calm.0")["oom_kills"] == 0

    def test_oom_of_a_child_ends_the_whole_workload(self) -> None:
        python = " ".join(PYTHON)
        self.client.start("c4/tree.0", "/bin/sh", "-c", f"{python} '{HOG}'; sleep 100", memory_bytes=32 << 20)
        assert self.client.exit_of("c4/tree.0")["reason"] == "oom"

    def test_fork_bomb_is_held_and_killed(self) -> None:
        self.client.start("c5/bomb.0", *PYTHON, BOMB, pids=30, memory_bytes=256 << 20, cpu_millicores=900)
        wait(lambda: self.client.ask("usage")["workloads"]["c5/bomb.0"][2] >= 28, "the bomb fills its limit")
        assert self.client.ask("usage")["workloads"]["c5/bomb.0"][2] <= 30
        self.client.ask("stop", allocation="c5/bomb.0", epoch=1, grace_ms=0)
        assert self.client.exit_of("c5/bomb.0")["reason"] == "stopped"

    def test_exit_codes_and_signals(self) -> None:
        for index, (script, code, number) in enumerate((("exit 3", 3, None), ("kill -SEGV $$", None, 11))):
            self.client.start(f"c6/e.{index}", "/bin/sh", "-c", script)
            ended = self.client.exit_of(f"c6/e.{index}")
            assert (ended["code"], ended["signal"], ended["status_known"]) == (code, number, True)

    def test_adoption_after_the_sandboxer_is_killed(self) -> None:
        go = self.shared / "go"
        script = f"while [ ! -e {go} ]; do sleep 0.05; done; exit 11"
        keep = self.client.start("c7/keep.0", "/bin/sh", "-c", script)
        deadline_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 60_000_000_000
        assert self.client.ask("renew", deadline_ns=deadline_ns, registration=0)["ok"]
        strict = self.client.start("c7/strict.0", "sleep", "100", on_disconnect="stop")
        pid = self.client.hello["pid"]
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        wait(lambda: not alive(pid) and not alive(strict["pid"]), "sandboxer and stop workload died")
        assert alive(keep["pid"])
        self.launch()
        adopted = self.client.record("c7/keep.0")
        assert (adopted["state"], adopted["adopted"], adopted["pid"]) == ("running", True, keep["pid"])
        go.touch()
        ended = self.client.exit_of("c7/keep.0")
        # Before Linux 6.15 the status is known only if the zombie was seen before its parent reaped it.
        assert (ended["code"], ended["status_known"]) in [(11, True), (None, False)]
        if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15):
            assert ended["code"] == 11

    def test_shutdown_leaves_nothing_and_touches_no_other_cgroup(self) -> None:
        mounts = detect.read_mounts()
        other = f"{mounts.v2 if KIND == 'v2' else mounts.v1['pids']}/other-{os.getpid()}"
        os.mkdir(other)
        with subprocess.Popen(["sleep", "1000"]) as bystander:
            try:
                Path(other, "cgroup.procs").write_text(str(bystander.pid))
                record = self.client.start(
                    "c8/w.0", "/bin/sh", "-c", "trap '' TERM; sleep 100; sleep 100", grace_ms=100
                )
                self.client.ask("shutdown", stop_workloads=True)
                assert self.trees() == []
                assert not alive(record["pid"])
                assert bystander.poll() is None
                assert Path(other, "cgroup.procs").read_text().split() == [str(bystander.pid)]
            finally:
                bystander.kill()
                bystander.wait()
                with contextlib.suppress(OSError):
                    os.rmdir(other)


def main(arguments: list[str]) -> int:
    global KIND, DIRECTORY, SLOW
    KIND, DIRECTORY = arguments[0], Path(arguments[1])
    if arguments[2:3] == ["--slow"]:
        SLOW = float(arguments[3])
    began = time.monotonic()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Conformance)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    bad = [(str(case), text) for case, text in [*result.failures, *result.errors]]
    summary = {
        "kind": KIND,
        "kernel": os.uname().release,
        "ran": result.testsRun,
        "failed": [case for case, _ in bad],
        "skipped": len(result.skipped),
        "seconds": round(time.monotonic() - began, 1),
    }
    print("CONFORMANCE", json.dumps(summary), flush=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
