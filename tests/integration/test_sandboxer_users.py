"""A workload of root's is root inside, and outside a user that nobody else is."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.sandbox_client import WorkloadRecord
from agents.sandboxer import users
from agents.sandboxer.cgroups import base
from tests.integration.sandbox_rig import Rig, alive, assignment, trees, until
from tests.integration.test_sandboxer_isolation import output_of, said_by

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def refused(user: int, *command: str) -> bool:
    """Whether the command, run by this user, is denied what it tries."""
    done = subprocess.run(command, user=user, group=user, extra_groups=[], capture_output=True, text=True, check=False)
    return done.returncode != 0 and ("not permitted" in done.stderr or "denied" in done.stderr)


def owner_of(record: WorkloadRecord, name: str = "") -> tuple[int, int]:
    """(user, mode) of something in its working directory, or of that."""
    found = Path(record.output, "work", name).stat()
    return found.st_uid, stat.S_IMODE(found.st_mode)


def user_of(record: WorkloadRecord) -> int:
    """The one user, and group, that the process is by the host's word."""
    fields = status_of(record.pid)
    numbers = {*fields["Uid"].split(), *fields["Gid"].split()}
    assert fields["Groups"].strip() == ""
    assert len(numbers) == 1, fields
    return int(numbers.pop())


async def sleeps(rig: Rig, allocation: str) -> WorkloadRecord:
    return await rig.client.start(assignment(allocation, "sleep", "100"))


async def test_every_workload_is_another_user_outside_and_root_inside(make_rig: Callable[..., Rig]) -> None:
    nodes = [make_rig(), make_rig()]
    seen = []
    for node in nodes:
        await node.connect()
        seen += [user_of(await sleeps(node, f"u/w.{number}")) for number in range(3)]
        said = await output_of(
            node, "u/id.0", "/bin/sh", "-c", "id -u; id -G; cat /proc/self/uid_map /proc/self/gid_map"
        )
        assert said.split()[:2] == ["0", "0"]
        assert [line.split()[::2] for line in said.splitlines()[2:]] == [["0", "1"], ["0", "1"]]
    assert len(set(seen)) == 6
    assert {user in users.parse_range("") for user in seen} == {True}
    blocks = [user // users.BLOCK for user in seen]
    assert blocks[0] == blocks[1] == blocks[2] != blocks[3] == blocks[4] == blocks[5]


async def test_the_init_is_the_same_user_and_as_powerless(rig: Rig) -> None:
    record = await sleeps(rig, "u/w.0")
    path = next(tree for tree in trees(rig.node) if "/pids/" in tree) + "/u_w.0@1"
    identity = json.loads(base.get_identity(path) or b"")
    assert identity["user"] == user_of(record)
    init = identity["init"]
    await until(lambda: status_of(init)["CapPrm"].strip() == "0" * 16, "the init, which may be later, waits")
    assert status_of(init)["Uid"].split() == status_of(init)["Gid"].split() == [str(identity["user"])] * 4


async def test_a_workload_neither_reads_nor_writes_what_is_roots(rig: Rig, shared: Path) -> None:
    secret, guarded, public = (shared / name for name in ("secret", "guarded", "public"))
    for file, mode in ((secret, 0o600), (guarded, 0o644), (public, 0o644)):
        file.write_text("root's\n")
        file.chmod(mode)
    script = f"""cat {public}; cat {secret} && echo READ; cat /etc/shadow && echo READ
        echo x >> {guarded} && echo WROTE; chmod 777 {secret} && echo CHANGED; chown 0 /etc/hostname && echo CHANGED
        ls {rig.directory}; ls {rig.directory.parent} | wc -l; true"""
    said = await output_of(rig, "u/w.0", "/bin/sh", "-c", script)
    assert "root's" in said
    assert not {"READ", "WROTE", "CHANGED"} & set(said.split())
    assert guarded.read_text() == "root's\n"
    stdout = said[: said.index("cat:")] if "cat:" in said else said
    assert stdout.split()[1:] == ["allocations", "1"], "of the node's directory there is only the way to its own"


async def test_two_workloads_are_strangers_even_where_a_namespace_would_fail(rig: Rig) -> None:
    first, second = await sleeps(rig, "u/first.0"), await sleeps(rig, "u/second.0")
    user = user_of(first)
    assert refused(user, "/bin/kill", "-9", str(second.pid))
    assert refused(user, "cat", f"/proc/{second.pid}/environ")
    assert refused(user, "ls", f"/proc/{second.pid}/root/")
    assert not refused(user_of(second), "/bin/kill", "-0", str(second.pid))
    assert alive(second.pid)
    assert owner_of(second) == (user_of(second), 0o700)


async def test_a_workload_works_in_a_directory_of_its_own_below_a_closed_one(rig: Rig) -> None:
    rig.directory.chmod(0o700)
    script = """pwd; echo "$HOME $TMPDIR"; echo one > file; mkdir -p deep/er; cp file $TMPDIR/copy; cat "$PWD/tmp/copy"
        echo two > /dev/stderr; echo three >> /dev/stdout; ln -s /etc/passwd ../stdout 2>/dev/null || echo fixed"""
    record = await rig.client.start(assignment("u/w.0", "/bin/sh", "-c", script))
    await rig.exited("u/w.0")
    work = f"{record.output}/work"
    assert said_by(record).splitlines() == [work, f"{work} {work}/tmp", "one", "three", "fixed", "two"]
    assert owner_of(record, "file")[0] == owner_of(record)[0] in users.parse_range("")
    await rig.client.forget("u/w.0", 1)
    await until(lambda: not Path(record.output).exists(), "all of it is removed")


async def test_an_adopted_workload_keeps_its_user_and_nobody_else_gets_it(
    make_rig: Callable[..., Rig], shared: Path
) -> None:
    rig, other = make_rig(), make_rig()
    await rig.connect()
    keep = await rig.client.start(
        assignment("u/keep.0", "/bin/sh", "-c", f"while [ ! -e {shared}/go ]; do sleep 0.02; done; echo end")
    )
    ended = await rig.client.start(assignment("u/ended.0", "true"))
    await rig.exited("u/ended.0")
    before = [user_of(keep), owner_of(ended)[0]]
    block = before[0] // users.BLOCK * users.BLOCK
    await rig.kill_sandboxer()
    with pytest.raises(users.NoUsers):  # its init holds the claim
        users.claim(range(block, block + users.BLOCK), "somebody else")
    await other.connect()
    assert user_of(await sleeps(other, "u/w.0")) // users.BLOCK * users.BLOCK != block
    await rig.connect()
    assert user_of(keep) == before[0]
    after = [user_of(await sleeps(rig, f"u/new.{number}")) for number in range(3)]
    assert {user // users.BLOCK * users.BLOCK for user in after} == {block}
    assert not set(before) & set(after)
    (shared / "go").touch()
    exit_ = (await rig.exited("u/keep.0")).exit
    assert exit_ is not None
    assert (exit_.code, exit_.status_known) == (0, True)
    assert said_by(keep) == "end\n"


@pytest.fixture
def closed(shared: Path) -> Path:
    """A program in a directory that only root may enter."""
    directory = shared / "closed"
    directory.mkdir(mode=0o700)
    (directory / "program").write_text("#!/bin/sh\necho ran\n")
    (directory / "program").chmod(0o755)
    return directory / "program"


async def test_a_program_that_only_root_may_reach_fails_with_what_to_do(rig: Rig, closed: Path) -> None:
    inside = rig.directory / "program"
    await asyncio.to_thread(shutil.copy, closed, inside)
    for number, (program, why) in enumerate(((closed, "Permission denied"), (inside, "No such file or directory"))):
        record = await rig.client.start(assignment(f"u/w.{number}", str(program)))
        assert record.exit is not None
        assert record.exit.detail.startswith(
            f"executing '{program}': {why}; a workload is root inside, but an unprivileged"
        )
        assert "must be open to everybody" in record.exit.detail
    absent = await rig.client.start(assignment("u/absent.0", "/no/such"))
    assert absent.exit is not None
    assert absent.exit.detail == "executing '/no/such': No such file or directory"


@pytest.mark.parametrize(("numbers", "why"), [("off", "turned off by configuration"), ("8192:9", "8192:9 holds no")])
async def test_without_one_a_workload_runs_as_before_and_the_level_says_so(
    make_rig: Callable[..., Rig], closed: Path, numbers: str, why: str
) -> None:
    rig = make_rig("auto", numbers)
    await rig.connect()
    assert rig.client.hello.isolation == "degraded"
    assert rig.client.hello.isolation_why.startswith(f"no user namespace ({why}")
    assert rig.client.hello.isolation_why.endswith("): workloads are user 0 on this machine's files")
    said = await output_of(
        rig,
        "u/w.0",
        "/bin/sh",
        "-c",
        f"{closed}; pwd; grep CapPrm /proc/self/status; : >> /proc/sys/kernel/core_pattern",
        code=2,
    )
    assert said.split()[:4] == ["ran", f"{rig.directory}/allocations/u_w.0@1/work", "CapPrm:", "0" * 16]
    assert "Read-only file system" in said
    assert user_of(await sleeps(rig, "u/sleeps.0")) == 0


def test_where_the_kernel_forbids_them_workloads_run_and_the_level_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-s", str(ROOT / "tests/integration/forbidding_run.py"), str(tmp_path / "node")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT}/tests/integration/qemu"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["isolation"] == "degraded"
    assert "unshare: No space left on device): workloads are user 0 on this machine's files" in told["why"]
    assert (told["exit"]["code"], told["inside"].split()) == (0, ["0", "works"])
