"""Deaths of agents and sandboxers, and what the next sandboxer makes of what is left."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.sandbox_client import SandboxerGone, SandboxerRefused
from agents.sandboxer import journal_file, linux, protocol
from agents.sandboxer.cgroups import base
from tests.integration.sandbox_rig import CLUSTER, Rig, alive, assignment, children, trees, until

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]

WAIT_FOR_FILE = "while [ ! -e {} ]; do sleep 0.02; done; exit {}"


def waits_for(file: Path, code: int) -> tuple[str, ...]:
    return ("/bin/sh", "-c", WAIT_FOR_FILE.format(file, code))


async def test_workloads_do_not_notice_the_death_of_an_agent(rig: Rig, shared: Path) -> None:
    incarnation = rig.client.incarnation
    record = await rig.client.start(assignment("default/w.0", *waits_for(shared / "go", 7)))
    script = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\n"
        "from agents.sandbox_client import SandboxClient\n"
        "async def run():\n"
        "    client = await SandboxClient.connect(Path(sys.argv[1]), start_if_absent=False)\n"
        "    print(len(await client.list()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(run())"
    )
    command = [sys.executable, "-c", script, str(rig.directory)]
    agent = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert (agent.returncode, agent.stdout) == (-9, "1\n")
    await rig.client.close()
    with pytest.raises(SandboxerGone):
        await rig.client.list()
    await rig.connect()
    assert rig.client.incarnation == incarnation
    assert alive(record.pid)
    (shared / "go").touch()
    ended = (await rig.exited("default/w.0")).exit
    assert ended is not None
    assert (ended.code, ended.status_known) == (7, True)


@pytest.mark.parametrize("kind", ["hybrid", "v1"])
async def test_after_its_sandboxer_is_killed_keep_runs_on_stop_dies_and_exit_status_is_right(
    make_rig: Callable[..., Rig], shared: Path, kind: str
) -> None:
    rig = make_rig(kind)
    await rig.connect()
    first = rig.client.incarnation
    keep = await rig.client.start(assignment("default/keep.0", *waits_for(shared / "go", 11), epoch=5))
    signalled = await rig.client.start(assignment("default/term.0", "sleep", "100", epoch=6))
    await rig.renew(60.0)
    strict = await rig.client.start(assignment("default/strict.0", "sleep", "100", on_disconnect="stop", epoch=7))
    await rig.kill_sandboxer()
    await until(lambda: not alive(strict.pid), "the stop workload died with it")
    assert alive(keep.pid)
    await rig.connect()
    assert rig.client.incarnation != first
    adopted = await rig.record("default/keep.0", 5)
    assert adopted is not None
    assert (adopted.state, adopted.adopted, adopted.pid, adopted.attempt) == ("running", True, keep.pid, 1)
    lost = (await rig.exited("default/strict.0", 7)).exit
    assert lost is not None
    assert lost.code is None
    assert (lost.reason, lost.signal) in (("lost", None), ("signaled", 9))
    assert "default/keep.0" in (await rig.client.usage()).workloads
    (shared / "go").touch()
    ended = (await rig.exited("default/keep.0", 5)).exit
    assert ended is not None
    assert (ended.code, ended.signal, ended.reason, ended.status_known) == (11, None, "exited", True)
    await rig.client.stop("default/term.0", 6, 5)
    stopped = (await rig.exited("default/term.0", 6)).exit
    assert stopped is not None
    assert (stopped.signal, stopped.reason) == (15, "stopped")
    assert not alive(signalled.pid)


async def test_an_adopted_workload_is_still_held_to_its_memory_and_killed_whole(rig: Rig, shared: Path) -> None:
    script = f"while [ ! -e {shared / 'go'} ]; do sleep 0.02; done; "
    script += "python3 -c 'x=[]\nwhile 1: x.append(bytearray(1<<20))'; sleep 60"
    await rig.client.start(assignment("default/hog.0", "/bin/sh", "-c", script, memory=32 << 20))
    await rig.kill_sandboxer()
    await rig.connect()
    (shared / "go").touch()
    record = await rig.exited("default/hog.0")
    assert record.exit is not None
    assert record.exit.reason == "oom"


async def test_an_exit_while_no_sandboxer_lived_is_never_given_an_invented_status(rig: Rig, shared: Path) -> None:
    record = await rig.client.start(assignment("default/gone.0", *waits_for(shared / "go", 3)))
    await rig.kill_sandboxer()
    (shared / "go").touch()
    await until(lambda: linux.process_stat(record.pid) is None, "it ended and was reaped")
    await rig.connect()
    ended = (await rig.exited("default/gone.0")).exit
    assert ended is not None
    assert (ended.code, ended.signal, ended.reason, ended.status_known) == (None, None, "lost", False)


async def test_a_kernel_that_cannot_tell_an_adopted_exit_is_not_guessed_for(rig: Rig, shared: Path) -> None:
    await rig.client.start(assignment("default/w.0", *waits_for(shared / "go", 3)))
    await rig.kill_sandboxer()
    await launch_dying(rig, "kernel-cannot-tell")
    (shared / "go").touch()
    ended = (await rig.exited("default/w.0")).exit
    assert ended is not None
    assert (ended.code, ended.signal, ended.reason, ended.status_known) == (None, None, "lost", False)
    assert "no longer knows" in ended.detail


async def test_fences_and_exits_outlive_the_sandboxer(rig: Rig) -> None:
    await rig.client.start(assignment("default/a.0", "/bin/sh", "-c", "exit 9", epoch=20))
    await rig.exited("default/a.0", 20)
    await rig.client.stop("default/b.0", 30, 0)
    await rig.client.start(assignment("default/c.0", "true", epoch=40))
    record = await rig.exited("default/c.0", 40)
    await until(lambda: not os.path.exists(record.cgroup), "its exit is durable")
    await rig.client.forget("default/c.0", 40)
    await rig.client.start(assignment("default/d.0", "true", epoch=50))  # what was journalled before it is durable
    await rig.kill_sandboxer()
    await rig.connect()
    ended = (await rig.exited("default/a.0", 20)).exit
    assert ended is not None
    assert ended.code == 9
    assert await rig.record("default/c.0", 40) is None
    for allocation, epoch in (("default/a.0", 19), ("default/b.0", 30), ("default/c.0", 40)):
        with pytest.raises(SandboxerRefused) as refused:
            await rig.client.start(assignment(allocation, "true", epoch=epoch))
        assert refused.value.reason == "stale-epoch"


@pytest.mark.parametrize(
    ("step", "ran", "reasons"),
    [
        ("intent-durable", False, {"start-failed"}),
        ("group-made", False, {"start-failed"}),
        ("forked", False, {"start-failed"}),
        ("recorded", False, {"start-failed", "lost"}),
        ("executed", True, {"exited"}),
        ("exit-seen", True, {"lost"}),
        ("exit-durable", True, {"exited"}),
    ],
)
async def test_kill_at_every_step_of_a_start_and_an_exit(
    make_rig: Callable[..., Rig], shared: Path, step: str, ran: bool, reasons: set[str]
) -> None:
    rig = make_rig()
    await launch_dying(rig, step)
    marker, go = shared / "ran", shared / "go"
    script = f"echo x >> {marker}; " + WAIT_FOR_FILE.format(go, 42)
    dying = rig.client.hello.pid
    if step != "executed":
        go.touch()
    request = asyncio.ensure_future(rig.client.start(assignment("default/w.0", "/bin/sh", "-c", script, epoch=3)))
    await asyncio.wait([request], timeout=30)
    await until(lambda: not alive(dying), f"it died at {step}")
    await asyncio.gather(request, return_exceptions=True)
    await rig.client.close()
    await rig.connect()
    go.touch()
    record = await rig.exited("default/w.0", 3)
    assert record.exit is not None
    assert record.exit.reason in reasons
    if record.exit.reason == "exited":
        assert (record.exit.code, record.exit.status_known) == (42, True)
    else:
        assert (record.exit.code, record.exit.signal, record.exit.status_known) == (None, None, False)
    assert marker.exists() == ran
    again = await rig.client.start(assignment("default/w.0", "/bin/sh", "-c", script, epoch=3))
    assert again.state == "exited"
    assert not ran or marker.read_text() == "x\n"
    await until(lambda: not os.path.exists(record.cgroup), "its cgroup is removed")
    assert (await rig.client.start(assignment("default/w.0", "sleep", "9", epoch=4))).state == "running"


async def test_a_stop_whose_sandboxer_died_is_finished_by_the_next(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    await launch_dying(rig, "stop-ordered")
    dying = rig.client.hello.pid
    record = await rig.client.start(assignment("default/w.0", "sleep", "100", epoch=3))
    with pytest.raises(SandboxerGone):
        await rig.client.stop("default/w.0", 3, 5)
    await until(lambda: not alive(dying), "it died")
    await rig.client.close()
    await rig.connect()
    ended = (await rig.exited("default/w.0", 3)).exit
    assert ended is not None
    assert (ended.reason, ended.signal) == ("stopped", 15)
    assert not alive(record.pid)


async def test_a_reused_process_id_is_never_signalled(rig: Rig) -> None:
    record = await rig.client.start(assignment("default/w.0", "sleep", "100"))
    await rig.kill_sandboxer()
    with subprocess.Popen(["sleep", "100"]) as stranger:  # noqa: ASYNC220
        path = next(tree for tree in trees(rig.node) if "/pids/" in tree) + "/default_w.0@1"
        identity = json.loads(base.get_identity(path) or b"")
        init = identity["init"]
        assert identity["pid"] == record.pid
        base.set_identity(path, json.dumps({**identity, "pid": stranger.pid, "init": stranger.pid}).encode())
        await rig.connect()
        ended = (await rig.exited("default/w.0")).exit
        assert ended is not None
        assert (ended.reason, ended.status_known) == ("lost", False)
        assert stranger.poll() is None
        assert not alive(record.pid)
        stranger.kill()
    pidfd = os.pidfd_open(init)
    linux_kill(pidfd)


async def test_groups_of_nobody_are_removed_at_the_start(rig: Rig) -> None:
    await rig.kill_sandboxer()
    for tree in trees(rig.node):
        os.mkdir(f"{tree}/default_half.0@4")
    await rig.connect()
    await until(lambda: not any(os.path.exists(f"{tree}/default_half.0@4") for tree in trees(rig.node)), "removed")
    assert await rig.client.list() == []


async def test_a_torn_journal_is_cut_and_a_damaged_one_kept_aside(rig: Rig) -> None:
    for epoch in (1, 2, 3):
        await rig.client.start(assignment("default/w.0", "true", epoch=epoch))
        await rig.exited("default/w.0", epoch)
    await rig.kill_sandboxer()
    path = rig.directory / protocol.JOURNAL_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"', b"'", 1)
    path.write_bytes(b"".join(lines) + b'0badc0de {"k":"fe')
    await rig.connect()
    assert (rig.directory / f"{protocol.JOURNAL_NAME}.damaged").exists()
    assert "damaged" in (rig.directory / protocol.LOG_NAME).read_text()
    assert {record.epoch for record in await rig.client.list()} == {1, 2, 3}
    assert journal_file.parse(path.read_bytes()).damaged == 0


async def test_starts_wait_for_a_broken_journal_and_stops_do_not(rig: Rig) -> None:
    running = await rig.client.start(assignment("default/w.0", "sleep", "100"))
    path = rig.directory / protocol.JOURNAL_NAME
    (path).rename(rig.directory / "aside")
    path.mkdir()  # the child that comes next cannot open it
    [child] = [pid for pid in children(rig.client.hello.pid) if linux.process_stat(pid).name == "skerry-journal"]  # type: ignore[union-attr]
    linux_kill(os.pidfd_open(child))

    async def refusal() -> str:
        try:
            await rig.client.start(assignment("default/new.0", "true"))
        except SandboxerRefused as error:
            return error.reason
        return ""

    assert await refusal() == "journal-failed"
    await rig.client.stop("default/w.0", 1, 5)
    ended = (await rig.exited("default/w.0")).exit
    assert ended is not None
    assert ended.reason == "stopped"
    assert not alive(running.pid)
    path.rmdir()
    (rig.directory / "aside").rename(path)
    async with asyncio.timeout(20):
        while await refusal():  # noqa: ASYNC110 - the journal comes back by itself
            await asyncio.sleep(0.05)
    assert (await rig.exited("default/new.0")).exit is not None
    await rig.kill_sandboxer()
    await rig.connect()
    outlived = (await rig.exited("default/w.0")).exit
    assert outlived is not None
    assert outlived.reason == "stopped"


async def test_leaving_without_stopping_keeps_the_workloads(rig: Rig) -> None:
    record = await rig.client.start(assignment("default/w.0", "sleep", "100"))
    pid = rig.client.hello.pid
    await rig.client.shutdown(stop_workloads=False)
    await until(lambda: not alive(pid), "it left")
    assert alive(record.pid)
    await rig.client.close()
    await rig.connect()
    adopted = await rig.record("default/w.0")
    assert adopted is not None
    assert adopted.state == "running"


async def test_the_trace_tells_what_happened_in_order(rig: Rig) -> None:
    await rig.client.start(assignment("default/w.0", "sleep", "100", epoch=8))
    await rig.kill_sandboxer()
    await rig.connect()
    await rig.client.stop("default/w.0", 8, 5)
    await rig.exited("default/w.0", 8)
    await rig.client.shutdown(stop_workloads=True)
    lines = []
    for file in (rig.directory / "trace").iterdir():
        events = [json.loads(line) for line in file.read_text().splitlines()]
        assert file.name == f"{rig.node}-{events[0]['inc']}.jsonl"
        assert events[0]["k"] == "meta"
        assert [event["i"] for event in events] == list(range(1, len(events) + 1))
        assert [event["hlc"] for event in events] == sorted({event["hlc"] for event in events})
        lines += [event for event in events[1:] if event["k"] == "run"]
    lines.sort(key=lambda event: (event["hlc"], event["n"], event["inc"], event["i"]))
    assert [event["do"] for event in lines] == ["start", "adopt", "stop", "exit"]
    assert {(event["n"], event["allocation"], event["epoch"]) for event in lines} == {(rig.node, "default/w.0", 8)}
    assert lines[-1]["exit"] == {"code": None, "signal": 15, "reason": "stopped", "status_known": True, "detail": ""}


def linux_kill(pidfd: int) -> None:
    import signal

    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


async def launch_dying(rig: Rig, step: str) -> None:
    rig.directory.mkdir(exist_ok=True)
    command = [sys.executable, "-S", "-s", str(Path(__file__).with_name("dying_sandboxer.py")), step, "--detach"]
    command += ["--dir", str(rig.directory), "--node", rig.node, "--cluster", CLUSTER]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with (rig.directory / "dying.log").open("ab") as log:
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=30
        )
    assert done.returncode == 0, (rig.directory / "dying.log").read_text()
    await rig.connect()
