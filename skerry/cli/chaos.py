"""``skerry chaos ls|run|heal|proxy``."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from skerry.cli.common import DEV_DIRECTORY, directory_option, output_option, print_json, print_table, progress
from skerry.cli.daemons import die_with, die_with_option
from skerry.dev.detached import facts_of, start_detached, stop_detached
from skerry.errors import FAILED, OK, UNKNOWN, UsageError


@click.group()
def chaos() -> None:
    """Break the cluster on purpose, and heal it."""


@chaos.command("ls")
@output_option
def list_scenarios(output: str) -> int:
    """List the scenarios that come with Skerry."""
    from chaos.scenario.library import scenarios

    rows = scenarios()
    if output == "json":
        print_json({"scenarios": [{"name": s.name, "lesson": s.lesson} for s in rows]})
    else:
        print_table(("scenario", "lesson"), [(s.name, s.lesson) for s in rows])
    return OK


@chaos.command("run")
@click.argument("scenario")
@click.option(
    "--backend", type=click.Choice(["proxy"]), default="proxy", show_default=True, help="What injects the faults."
)
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Seed of every choice; else the scenario's own.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Where a cluster of its own keeps its trace."
)
@directory_option
@output_option
def run_scenario(
    scenario: str, backend: str, seed: int | None, out: Path | None, directory: Path | None, output: str
) -> int:
    """Run SCENARIO (a name of `chaos ls`, or a TOML file) against the running `skerry dev` cluster.

    Where none runs, one is started for it and stopped again.  Exit codes: 0 every expectation held;
    1 one did not; 6 unknown.
    """
    from chaos.scenario.library import load_scenario

    plan = load_scenario(scenario)
    home = (directory or Path(DEV_DIRECTORY)).absolute()
    facts = facts_of(home)
    if facts is None and directory is not None:
        raise UsageError(f"no cluster runs in {home}", hint="start one with `skerry dev --detach`, or leave --dir out")
    result = _run_here(plan, facts, seed) if facts else _run_alone(plan, seed, out)
    if output == "json":
        print_json(msgspec.to_builtins(result))
    else:
        _print_result(result)
    return {"pass": OK, "fail": FAILED}.get(result.verdict, UNKNOWN)


def _run_here(plan: Any, facts: dict[str, Any], seed: int | None) -> Any:
    from chaos.scenario.runner import run_scenario as run

    from skerry.dev.target import DevCluster

    return asyncio.run(run(plan, DevCluster(facts), seed=seed, say=progress))


def _run_alone(plan: Any, seed: int | None, out: Path | None) -> Any:
    """Start a cluster of the scenario's size, run it there, stop it."""
    home = (out or Path(tempfile.mkdtemp(prefix="skerry-chaos-")) / "cluster").absolute()
    progress(f"no cluster runs here; starting one in {home}")
    arguments = ["--replicas", str(plan.cluster.replicas), "--agents", str(plan.cluster.agents)]
    facts = start_detached(home, arguments, progress)
    try:
        return _run_here(plan, facts, seed)
    finally:
        stop_detached(home)


def _print_result(result: Any) -> None:
    print(f"{result.scenario}: {result.verdict}")
    for why in result.reasons:
        print(f"  {why}")
    for finding in result.invariants:
        mark = {True: "ok  ", False: "FAIL", None: "n/a "}[finding.ok]
        print(f"  {mark} {finding.name}  ({finding.checked} checked)")
    for name, value in result.metrics.items():
        print(f"  {name} = {value}")
    print(f"  trace: {result.trace}")


@chaos.command()
@directory_option
@output_option
def heal(directory: Path | None, output: str) -> int:
    """Remove every fault: all toxics, all paused processes; start what was killed."""
    from chaos.scenario.runner import heal_everything

    from skerry.dev.target import DevCluster

    home = (directory or Path(DEV_DIRECTORY)).absolute()
    facts = facts_of(home)
    if facts is None:
        raise UsageError(f"no cluster runs in {home}", hint="pass --dir")
    healed = asyncio.run(heal_everything(DevCluster(facts)))
    if output == "json":
        print_json({"ok": True, "healed": healed})
    else:
        print(f"healed: {', '.join(healed) or 'nothing was broken'}")
    return OK


@chaos.command("proxy")
@click.option("--listen", default="127.0.0.1:8474", show_default=True, help="HOST:PORT of the Toxiproxy API.")
@click.option(
    "--proxies", type=click.Path(path_type=Path, dir_okay=False), help="JSON or TOML list of {name, listen, upstream}."
)
@click.option(
    "--trace", "trace_directory", type=click.Path(path_type=Path, file_okay=False), help="Folder for the trace."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of jitter and toxicity.")
@click.option(
    "--token", envvar="TOXIPROXY_AUTH_TOKEN", help="Bearer token asked of callers.  [env: TOXIPROXY_AUTH_TOKEN]"
)
@die_with_option
def proxy(
    listen: str,
    proxies: Path | None,
    trace_directory: Path | None,
    seed: int,
    token: str | None,
    parent_pid: int | None,
) -> int:
    """Run the chaos proxy: Toxiproxy's HTTP API, byte counters, a trace of every fault."""
    from chaos.proxy.server import ProxyConfig, main_proxy

    die_with(parent_pid)
    return main_proxy(ProxyConfig(listen=listen, proxies=proxies, trace=trace_directory, seed=seed, token=token))
