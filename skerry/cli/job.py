"""``skerry job ls|show``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from skerry.cli.common import Target, call, exit_words, print_json, print_table, target_options
from skerry.limits import kernel_limits


@click.group()
def job() -> None:
    """List and show jobs."""


@job.command("ls")
@target_options
def list_jobs(target: Target) -> int:
    """List all jobs."""
    answer = call(target, lambda client: client.jobs())
    if target.output == "json":
        print_json(answer)
    else:
        columns = ("job", "kind", "version", "replicas", "state")
        print_table(columns, [[row.get(c) for c in columns] for row in answer["jobs"]])
    return 0


@job.command("show")
@click.argument("name")
@click.option("--limits", is_flag=True, help="Show what the kernel holds each process to (on its own machine).")
@target_options
def show_job(target: Target, name: str, limits: bool) -> int:
    """Show one job and the newest attempt of each of its allocations.

    With --limits exits 1 when a process is held to something else than its job asks for.
    """
    answer = call(target, lambda client: client.job(name))
    wrong = _add_kernel_limits(answer) if limits else []
    if target.output == "json":
        print_json(answer)
        return int(bool(wrong))
    print(f"job {answer['job']}: {answer['state']}")
    if answer.get("reason"):
        print(answer["reason"])
    print()
    print_table(
        ("allocation", "attempt", "node", "epoch", "state", "pid", "exit"),
        [
            [a["id"], a["attempt"], a["node"], a["epoch"], a["state"], a.get("pid") or None, exit_words(a.get("exit"))]
            for a in answer["allocations"]
        ],
    )
    if limits:
        _print_limits(answer)
    return int(bool(wrong))


def _add_kernel_limits(answer: dict[str, Any]) -> list[str]:
    """Put what the kernel says beside each running attempt; returns the ids where it is not the spec's."""
    wanted = answer["limits"]
    wrong = []
    for allocation in answer["allocations"]:
        found = kernel_limits(allocation["pid"]) if allocation["state"] == "running" and allocation["pid"] else None
        if found is None:
            continue
        allocation["kernel"] = msgspec.to_builtins(found)
        held = all(not wanted[key] or getattr(found, key) == wanted[key] for key in wanted)
        allocation["kernel"]["equals_spec"] = held
        if not held:
            wrong.append(allocation["id"])
    return wrong


def _print_limits(answer: dict[str, Any]) -> None:
    wanted = answer["limits"]
    keys = ("cpu_millicores", "memory_bytes", "pids")
    rows: list[list[Any]] = [["the job file", *(wanted[key] or "no limit" for key in keys), ""]]
    for allocation in answer["allocations"]:
        if kernel := allocation.get("kernel"):
            values = [kernel[key] if kernel[key] is not None else "no limit" for key in keys]
            verdict = "as the job asks" if kernel["equals_spec"] else "NOT as the job asks"
            rows.append([kernel["cgroup"], *values, verdict])
    print()
    print_table(("limits of", *keys, ""), rows)
