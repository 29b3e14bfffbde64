"""``skerry replica`` and ``skerry agent``: the long-running processes.

Owns: their flags.  Must not know: what the processes do.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from skerry.cli.settings import load_settings, settings_options
from skerry.errors import UsageError

PR_SET_PDEATHSIG = 1


def die_with_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """A hidden option: end when the process that started us does."""
    return click.option("--die-with", "parent_pid", type=int, hidden=True)(command)


def die_with(parent_pid: int | None) -> None:
    """Get SIGTERM when the parent dies (prctl(2), PR_SET_PDEATHSIG); end at once if it is dead already."""
    if parent_pid is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)


def break_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--break NAME``: deliberate bugs, repeatable."""
    return click.option(
        "--break",
        "breaks",
        multiple=True,
        metavar="NAME",
        help="Run with a deliberate bug, to see the checkers find it; never in earnest.  Repeatable.",
    )(command)


def put_in_force(breaks: tuple[str, ...], role: str) -> None:
    """Break this process on purpose, before its modules are imported.

    Raises:
        UsageError: there is no such break of this kind of process.
    """
    if not breaks:
        return
    from chaos.breaks import break_process
    from chaos.errors import BreakUnknown

    try:
        break_process(breaks, role)
    except BreakUnknown as error:
        raise UsageError(error.message, hint=error.hint or "") from None


def known_breaks(breaks: tuple[str, ...]) -> dict[str, list[str]]:
    """Role of a process → the breaks that it is started with.

    Raises:
        UsageError: there is no such break.
    """
    roles: dict[str, list[str]] = {}
    if breaks:
        from chaos.breaks import LIVE_ROLES, find_breaks
        from chaos.errors import BreakUnknown

        try:
            for each in find_breaks(breaks):
                if each.role not in LIVE_ROLES:
                    raise BreakUnknown(f"the break {each.name} needs a simulated node", hint="see `skerry sim --break`")
                roles.setdefault(each.role, []).append(each.name)
        except BreakUnknown as error:
            raise UsageError(error.message, hint=error.hint or "") from None
    return roles


@click.command()
@click.option("--id", "id_", help="This replica's id, such as n1.  [replica.id]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Data directory.  [replica.dir]")
@click.option("--listen-links", help="HOST:PORT for replicas and agents.  [replica.listen_links]")
@click.option("--listen-api", help="HOST:PORT for the HTTP API.  [replica.listen_api]")
@die_with_option
@break_option
@settings_options
def replica(
    config: Path | None,
    settings: tuple[str, ...],
    id_: str | None,
    directory: Path | None,
    listen_links: str | None,
    listen_api: str | None,
    parent_pid: int | None,
    breaks: tuple[str, ...],
) -> int:
    """Run one scheduler replica until SIGTERM or Ctrl-C."""
    die_with(parent_pid)
    named = {
        "replica.id": id_,
        "replica.dir": directory,
        "replica.listen_links": listen_links,
        "replica.listen_api": listen_api,
    }
    loaded = load_settings(config, settings, named)
    put_in_force(breaks, "replica")
    from scheduler.replica import main_replica

    return main_replica(loaded)


@click.command()
@click.option("--id", "id_", help="This node's id, such as a1.  [agent.id]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Data directory.  [agent.dir]")
@die_with_option
@break_option
@settings_options
def agent(
    config: Path | None,
    settings: tuple[str, ...],
    id_: str | None,
    directory: Path | None,
    parent_pid: int | None,
    breaks: tuple[str, ...],
) -> int:
    """Run one node agent until SIGTERM or Ctrl-C; workloads run on unless configured otherwise."""
    die_with(parent_pid)
    loaded = load_settings(config, settings, {"agent.id": id_, "agent.dir": directory})
    put_in_force(breaks, "agent")
    from agents.agent import main_agent

    return main_agent(loaded)
