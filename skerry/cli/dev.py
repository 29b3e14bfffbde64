"""``skerry dev`` and ``skerry dev stop``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from skerry.cli.common import DEV_DIRECTORY, output_option, print_json, progress
from skerry.cli.daemons import break_option, known_breaks
from skerry.dev.detached import start_detached, stop_detached
from skerry.dev.layout import Plan, load_or_make_plan
from skerry.errors import UsageError


@click.group(invoke_without_command=True)
@click.option(
    "--replicas",
    type=click.IntRange(1, 9),
    help="Scheduler replicas: 1, 3 or 5 as a rule.  [default: 3, or what --dir was made with]",
)
@click.option("--agents", type=click.IntRange(0, 64), help="Node agents.  [default: 4, or what --dir was made with]")
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
@break_option
@click.option("--detach", is_flag=True, help="Return once the cluster is ready; end it with `skerry dev stop`.")
@output_option
@click.pass_context
def dev(
    ctx: click.Context,
    replicas: int | None,
    agents: int | None,
    directory: Path,
    agent_cpu: str,
    agent_memory: str,
    settings: tuple[str, ...],
    breaks: tuple[str, ...],
    detach: bool,
    output: str,
) -> int | None:
    """Run a cluster of real processes on this machine: replicas, agents, chaos proxy, no Docker.

    Ctrl-C stops every workload and removes every cgroup, namespace and socket it made.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = directory
        return None
    if replicas is not None and replicas % 2 == 0:
        raise UsageError(
            f"{replicas} replicas survive no more losses than {replicas - 1}", hint="ask for an odd number"
        )
    if breaks:
        known_breaks(breaks)
    extra = _settings(settings)
    home = directory.absolute()
    plan = _plan(home, replicas, agents, agent_cpu, agent_memory)
    if detach:
        arguments = [word for setting in settings for word in ("--set", setting)]
        arguments += [word for name in breaks for word in ("--break", name)]
        _announce(start_detached(home, arguments, progress), output)
        return 0
    return _run(home, plan, extra, breaks, output)


def _settings(settings: tuple[str, ...]) -> dict[str, str]:
    """``--set`` as dotted key → value, checked before anything is started."""
    from cluster import config as configuration

    extra: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or "." not in key:
            raise UsageError(f"--set {setting} is not a setting", hint="write --set section.key=value")
        extra[key] = value
    configuration.load(None, {}, extra)
    return extra


def _plan(directory: Path, replicas: int | None, agents: int | None, cpu: str, memory: str) -> Plan:
    """What to run: as the directory was made, or new."""
    from scheduler.units import UnitError, parse_cpu_millicores, parse_memory_bytes

    try:
        capacity = parse_cpu_millicores(cpu), parse_memory_bytes(memory)
    except UnitError as error:
        raise UsageError(str(error), hint="--agent-cpu takes 500m or 2, --agent-memory 512Mi or 4Gi") from None
    return load_or_make_plan(directory, replicas, agents, *capacity)


def _run(directory: Path, plan: Plan, extra: dict[str, str], breaks: tuple[str, ...], output: str) -> int:
    import uvloop

    from skerry.dev.supervisor import Supervisor

    supervisor = Supervisor(directory, plan, extra, progress, known_breaks(breaks))
    uvloop.run(supervisor.run(lambda facts: _announce(facts, output)))
    return 0


def _announce(facts: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(facts)
        sys.stdout.flush()
        return
    print(f"ready: {len(facts['apis'])} replicas, cluster {facts['cluster']} in {facts['dir']}")
    for name, url in facts["apis"].items():
        print(f"  {name}  {url}")
    print(f"  chaos proxy  {facts['chaos_api']}")
    print("try: skerry status    skerry run examples/service.toml --wait    skerry chaos run minority-leader")
    sys.stdout.flush()


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
    home = (directory or group_directory).absolute()
    stop_detached(home)
    print_json({"ok": True, "dir": str(home)}) if output == "json" else print(f"stopped; data is kept in {home}")
    return 0
