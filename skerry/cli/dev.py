"""``skerry dev`` and ``skerry dev stop``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from skerry.cli.common import DEV_DIRECTORY, output_option, print_json, progress, read_ready_file
from skerry.errors import DevError, UsageError

DETACH_S = 120.0
STOP_S = 60.0
POLL_S = 0.1


@click.group(invoke_without_command=True)
@click.option(
    "--replicas",
    type=click.IntRange(1, 9),
    default=3,
    show_default=True,
    help="Scheduler replicas: 1, 3 or 5 as a rule.",
)
@click.option("--agents", type=click.IntRange(0, 64), default=4, show_default=True, help="Node agents.")
@click.option(
    "--dir",
    "directory",
    envvar="SKERRY_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(DEV_DIRECTORY),
    show_default=True,
    help="Where the cluster keeps everything; used again, it goes on where it was.",
)
@click.option(
    "--agent-cpu",
    default="1",
    show_default=True,
    help="CPU that each node offers, booked apart from what the machine has.",
)
@click.option("--agent-memory", default="1Gi", show_default=True, help="Memory that each node offers.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Set one configuration key for every process; repeatable.",
)
@click.option("--detach", is_flag=True, help="Return once the cluster is ready; end it with `skerry dev stop`.")
@output_option
@click.pass_context
def dev(
    ctx: click.Context,
    replicas: int,
    agents: int,
    directory: Path,
    agent_cpu: str,
    agent_memory: str,
    settings: tuple[str, ...],
    detach: bool,
    output: str,
) -> int | None:
    """Run a cluster of real processes on this machine: replicas, agents, chaos proxy, no Docker.

    Ctrl-C stops every workload and removes every cgroup, namespace and socket it made.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = directory
        return None
    if replicas % 2 == 0:
        raise UsageError(
            f"{replicas} replicas survive no more losses than {replicas - 1}", hint="ask for an odd number"
        )
    if detach:
        return _detach(directory.absolute(), output)
    return _run(directory.absolute(), replicas, agents, agent_cpu, agent_memory, settings, output)


def _run(
    directory: Path, replicas: int, agents: int, cpu: str, memory: str, settings: tuple[str, ...], output: str
) -> int:
    import uvloop
    from scheduler.units import parse_cpu_millicores, parse_memory_bytes

    from skerry.dev.layout import load_or_make_plan
    from skerry.dev.supervisor import Supervisor

    extra: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or "." not in key:
            raise UsageError(f"--set {setting} is not a setting", hint="write --set section.key=value")
        extra[key] = value
    plan = load_or_make_plan(directory, replicas, agents, parse_cpu_millicores(cpu), parse_memory_bytes(memory))

    def ready(facts: dict[str, Any]) -> None:
        if output == "json":
            print_json(facts)
        else:
            _print_ready(facts)
        sys.stdout.flush()

    uvloop.run(Supervisor(directory, plan, extra, progress).run(ready))
    return 0


def _print_ready(facts: dict[str, Any]) -> None:
    print(f"ready: {len(facts['apis'])} replicas, cluster {facts['cluster']} in {facts['dir']}")
    for name, url in facts["apis"].items():
        print(f"  {name}  {url}")
    print(f"  chaos proxy  {facts['chaos_api']}")
    print("try: skerry status    skerry run examples/service.toml --wait    skerry chaos run minority-leader")


def _detach(directory: Path, output: str) -> int:
    """Start ourselves again in the background, and wait until that cluster is ready."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    directory.mkdir(parents=True, exist_ok=True)
    log_file = directory.parent / f"{directory.name}.log"
    if read_ready_file(directory):
        raise DevError(
            f"a cluster runs in {directory} already", hint=f"end it with `skerry dev stop --dir {directory}`"
        )
    with log_file.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            [sys.executable, "-m", "skerry", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline, shown = time.monotonic() + DETACH_S, 0
    while time.monotonic() < deadline:
        shown = _show_progress(log_file, shown)
        if facts := read_ready_file(directory):
            print_json(facts) if output == "json" else _print_ready(facts)
            return 0
        if child.poll() is not None:
            words = log_file.read_text(encoding="utf-8", errors="replace").strip()
            raise DevError(f"the cluster did not start:\n{words}", hint=f"logs: {directory / 'logs'}")
        time.sleep(POLL_S)
    child.terminate()
    raise DevError(f"the cluster was not ready within {DETACH_S:g} s", hint=f"see {log_file} and {directory / 'logs'}")


def _show_progress(log_file: Path, shown: int) -> int:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[shown:]:
        if not line.startswith(("ready:", "  ", "try:", "{")):
            progress(line)
    return len(lines)


@dev.command()
@click.option(
    "--dir",
    "directory",
    envvar="SKERRY_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the cluster.",
)
@output_option
@click.pass_obj
def stop(group_directory: Path, directory: Path | None, output: str) -> int:
    """Stop a cluster: all workloads, all processes; its data stays in the directory."""
    from skerry.dev.control import DevControl

    home = (directory or group_directory).absolute()
    facts = read_ready_file(home)
    if facts is None:
        raise DevError(f"no cluster runs in {home}", hint="pass --dir")
    pid = facts["supervisor"]
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        (home / "dev.json").unlink(missing_ok=True)
        raise DevError(
            f"the supervisor of {home} (pid {pid}) is gone; its processes ended with it",
            hint="start it again with `skerry dev`",
        ) from None
    asyncio.run(DevControl(home).stop())
    _wait_for_end(pidfd, pid)
    print_json({"ok": True, "dir": str(home)}) if output == "json" else print(f"stopped; data is kept in {home}")
    return 0


def _wait_for_end(pidfd: int, pid: int) -> None:
    import select

    try:
        ended, _, _ = select.select([pidfd], [], [], STOP_S)
    finally:
        os.close(pidfd)
    if not ended:
        raise DevError(f"the supervisor (pid {pid}) did not end within {STOP_S:g} s", hint="see the logs")
