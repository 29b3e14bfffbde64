"""``skerry chaos ls|run|heal|proxy``."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from skerry.cli.common import (
    DEV_DIRECTORY,
    directory_option,
    empty_folder,
    output_option,
    print_json,
    print_table,
    progress,
    token_of_environment,
)
from skerry.cli.daemons import die_with, die_with_option
from skerry.dev.detached import facts_of, start_detached, stop_detached
from skerry.errors import FAILED, OK, UNKNOWN, NoProcessControl, UsageError

PROCESS_FAULTS = ("kill", "pause")


def remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where a cluster is that `skerry dev` does not run: containers, or other machines."""
    for option in (
        click.option(
            "--chaos-api", envvar="SKERRY_CHAOS_API", help="Base URL of its chaos proxy.  [env: SKERRY_CHAOS_API]"
        ),
        click.option(
            "--token",
            envvar="SKERRY_TOKEN",
            help="API token.  [env: SKERRY_TOKEN, or SKERRY_TOKEN_FILE names its file]",
        ),
        click.option(
            "--address",
            envvar="SKERRY_ADDRESS",
            help="API addresses of all replicas of a running cluster, comma-separated.  [env: SKERRY_ADDRESS]",
        ),
    ):
        command = option(command)
    return command


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
    "--backend",
    type=click.Choice(["proxy", "sim"]),
    default="proxy",
    show_default=True,
    help="Break real processes through the proxy, or simulated ones in virtual time.",
)
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Seed of every choice; else the scenario's own.")
@click.option(
    "--runs",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Run it so often, each with its own seed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where a cluster of its own keeps its trace, or where the trace of one elsewhere is brought to.",
)
@remote_options
@directory_option
@output_option
def run_scenario(
    scenario: str,
    backend: str,
    seed: int | None,
    runs: int,
    out: Path | None,
    address: str | None,
    token: str | None,
    chaos_api: str | None,
    directory: Path | None,
    output: str,
) -> int:
    """Run SCENARIO (a name of `chaos ls`, or a TOML file) against the running `skerry dev` cluster.

    With --address and --chaos-api against a cluster elsewhere: containers, or other machines.  Where no cluster
    runs, one is started for it and stopped again.  With --backend sim in virtual time, where a seed is one
    run.  Exit codes: 0 every expectation held; 1 one did not; 6 unknown.
    Of many runs the worst counts, and the metrics are told as least, median and greatest.
    """
    from chaos.scenario.library import load_scenario

    plan = load_scenario(scenario)
    seeds = [(plan.seed if seed is None else seed) + number for number in range(runs)]
    if backend == "sim":
        results = _run_simulated(plan, seeds, out)
    elif address is not None:
        results = [_run_remote(plan, address, token, chaos_api, each, out) for each in seeds]
    else:
        home = (directory or Path(DEV_DIRECTORY)).absolute()
        facts = facts_of(home)
        if facts is None and directory is not None:
            raise UsageError(
                f"no cluster runs in {home}", hint="start one with `skerry dev --detach`, or leave --dir out"
            )
        results = _run_here(plan, facts, seeds) if facts else _run_alone(plan, seeds, out)
    if output == "json":
        print_json(msgspec.to_builtins(results[0]) if runs == 1 else _summary(results))
    else:
        for result in results:
            _print_result(result)
        if runs > 1:
            _print_summary(_summary(results))
    verdicts = {result.verdict for result in results}
    return FAILED if "fail" in verdicts else OK if verdicts == {"pass"} else UNKNOWN


def _summary(results: list[Any]) -> dict[str, Any]:
    """Many runs as one answer: the worst verdict, every run's own, and the spread of each metric."""
    verdicts = [result.verdict for result in results]
    spread: dict[str, dict[str, float]] = {}
    for name in results[0].metrics:
        values = [result.metrics[name] for result in results if result.metrics.get(name) is not None]
        if values:
            spread[name] = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    worst = "fail" if "fail" in verdicts else "pass" if set(verdicts) == {"pass"} else "unknown"
    return {
        "scenario": results[0].scenario,
        "verdict": worst,
        "runs": [msgspec.to_builtins(result) for result in results],
        "metrics": spread,
        "trace": results[0].trace,
    }


def _print_summary(summary: dict[str, Any]) -> None:
    passed = sum(1 for run in summary["runs"] if run["verdict"] == "pass")
    print(f"{summary['scenario']}: {passed} of {len(summary['runs'])} runs passed")
    rows = [(name, each["min"], each["median"], each["max"]) for name, each in summary["metrics"].items()]
    print_table(("metric", "min", "median", "max"), rows)


def _run_here(plan: Any, facts: dict[str, Any], seeds: list[int]) -> list[Any]:
    from chaos.scenario.live import run_scenario as run
    from skerry.dev.target import DevCluster

    return [asyncio.run(run(plan, DevCluster(facts), seed=seed, say=progress)) for seed in seeds]


def _run_simulated(plan: Any, seeds: list[int], out: Path | None) -> list[Any]:
    """Run it in virtual time; with several seeds each has its own folder for its trace."""
    from chaos.sim.scenarios import run_scenario as run

    home = (out or Path(tempfile.mkdtemp(prefix="skerry-sim-"))).absolute()
    folders = [home] if len(seeds) == 1 else [home / f"seed-{seed}" for seed in seeds]
    for folder in folders:
        empty_folder(folder)
    return [run(plan, seed=seed, out=folder, say=progress) for seed, folder in zip(seeds, folders, strict=True)]


def _run_remote(
    plan: Any, address: str, token: str | None, chaos_api: str | None, seed: int | None, out: Path | None
) -> Any:
    """Run it against a cluster known by its addresses; its trace is fetched into `out`."""
    from chaos.scenario.live import run_scenario as run

    if out_of_reach := sorted({step.fault for step in plan.at if step.fault in PROCESS_FAULTS}):
        raise NoProcessControl(
            f"{plan.name} needs {', '.join(out_of_reach)}, and only the addresses of this cluster are known",
            hint="run it on a `skerry dev` cluster: leave --address (SKERRY_ADDRESS) out",
        )
    folder = (out or Path(f"trace-{plan.name}-{time.strftime('%Y%m%dT%H%M%S')}")).absolute()

    async def conversation() -> Any:
        return await run(plan, await _remote_cluster(address, token, chaos_api, folder), seed=seed, say=progress)

    return asyncio.run(conversation())


async def _remote_cluster(address: str, token: str | None, chaos_api: str | None, folder: Path) -> Any:
    from skerry.dev.target import RemoteCluster, find_apis

    secret = token if token is not None else token_of_environment()
    if secret is None:
        raise UsageError("no token is known", hint="pass --token, or set SKERRY_TOKEN or SKERRY_TOKEN_FILE")
    if chaos_api is None:
        raise UsageError(
            "no chaos proxy is known: faults need one in the cluster's links",
            hint="pass --chaos-api, or set SKERRY_CHAOS_API",
        )
    apis = await find_apis([part.strip() for part in address.split(",") if part.strip()], secret)
    proxy_token = os.environ.get("TOXIPROXY_AUTH_TOKEN") or secret  # a proxy that asks for none ignores it
    return RemoteCluster(apis, token=secret, chaos_api=chaos_api, chaos_token=proxy_token, trace=folder)


def _run_alone(plan: Any, seeds: list[int], out: Path | None) -> list[Any]:
    """Start a cluster of the scenario's size, run it there (so often as there are seeds), stop it."""
    home = (out or Path(tempfile.mkdtemp(prefix="skerry-chaos-")) / "cluster").absolute()
    progress(f"no cluster runs here; starting one in {home}")
    arguments = ["--replicas", str(plan.cluster.replicas), "--agents", str(plan.cluster.agents)]
    facts = start_detached(home, arguments, progress)
    try:
        return _run_here(plan, facts, seeds)
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
@remote_options
@directory_option
@output_option
def heal(address: str | None, token: str | None, chaos_api: str | None, directory: Path | None, output: str) -> int:
    """Remove every fault: all toxics, all paused processes; start what was killed.

    With --chaos-api (a cluster elsewhere) all toxics: its processes are out of reach.
    """
    from chaos.scenario.live import heal_everything, heal_links
    from skerry.dev.target import DevCluster

    if chaos_api is not None:
        secret = os.environ.get("TOXIPROXY_AUTH_TOKEN") or token or token_of_environment()
        healed = asyncio.run(heal_links(chaos_api, secret))
    else:
        home = (directory or Path(DEV_DIRECTORY)).absolute()
        facts = facts_of(home)
        if facts is None:
            raise UsageError(f"no cluster runs in {home}", hint="pass --dir, or --chaos-api of a cluster elsewhere")
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
