"""``skerry bench raft|state``.

Owns: where results go: ``out/bench/*.json`` and the generated tables of ``docs/benchmarks.md``.
Must not know: how anything is measured.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from skerry.cli.common import output_option, print_json, progress
from skerry.errors import UsageError


@click.group()
def bench() -> None:
    """Measure this build on this machine; figures are medians of several runs."""


@bench.command()
@click.option(
    "--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs per figure; the median counts."
)
@click.option("--seconds", type=click.FloatRange(0.2, 600), default=3.0, show_default=True, help="Length of one run.")
@click.option("--outstanding", default="1,64,512", show_default=True, help="Proposals in flight, comma-separated.")
@click.option(
    "--kills",
    type=click.IntRange(0, 100),
    default=10,
    show_default=True,
    help="Leaders to kill for the failover figure.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/bench/raft.json"),
    show_default=True,
    help="Where the result goes.",
)
@click.option(
    "--docs", type=click.Path(path_type=Path, dir_okay=False), help="Rewrite the generated table of this document."
)
@output_option
def raft(runs: int, seconds: float, outstanding: str, kills: int, out: Path, docs: Path | None, output: str) -> int:
    """Commits a second and their latency through three replicas with durable disks, and failover by kill."""
    from skerry.bench_raft import markdown_table, run_bench

    try:
        depths = [int(part) for part in outstanding.split(",")]
    except ValueError:
        raise UsageError(f"--outstanding {outstanding} is not a list of numbers", hint="such as 1,64,512") from None
    if min(depths) < 1 or max(depths) > 100_000:
        raise UsageError("--outstanding takes numbers from 1 to 100000", hint="such as 1,64,512")
    progress(f"{len(depths)} depths, {runs} runs of {seconds:g} s each, then {kills} kills")
    result: dict[str, Any] = asyncio.run(
        run_bench(runs=runs, seconds=seconds, outstanding=depths, failover_kills=kills)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"v": 1, **result}, indent=1) + "\n", encoding="utf-8")
    table = markdown_table(result)
    if docs is not None:
        rewrite_table(docs, "bench raft", table)
    print_json(result) if output == "json" else print(table)
    return 0


@bench.command()
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="Rounds; the median counts.")
@click.option(
    "--allocations", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="Size of the state."
)
@click.option("--nodes", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Nodes they run on.")
@click.option("--jobs", default="1,1000", show_default=True, help="In how many jobs, comma-separated.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/bench/state.json"),
    show_default=True,
    help="Where the result goes.",
)
@click.option(
    "--docs", type=click.Path(path_type=Path, dir_okay=False), help="Rewrite the generated table of this document."
)
@output_option
def state(runs: int, allocations: int, nodes: int, jobs: str, out: Path, docs: Path | None, output: str) -> int:
    """How long freezing, writing and reading back a large state takes, and how long it holds the event loop."""
    from skerry.bench_state import markdown_table, run_bench

    try:
        counts = [int(part) for part in jobs.split(",")]
    except ValueError:
        raise UsageError(f"--jobs {jobs} is not a list of numbers", hint="such as 1,1000") from None
    if min(counts) < 1 or max(counts) > allocations:
        raise UsageError("--jobs takes numbers from 1 to --allocations", hint="such as 1,1000")
    results = []
    for count in counts:
        progress(f"{allocations} allocations in {count} jobs on {nodes} nodes, {runs} rounds")
        results.append(run_bench(allocations=allocations, nodes=nodes, jobs=count, runs=runs))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"v": 1, "results": results}, indent=1) + "\n", encoding="utf-8")
    table = markdown_table(results)
    if docs is not None:
        rewrite_table(docs, "bench state", table)
    print_json({"results": results}) if output == "json" else print(table)
    return 0


def rewrite_table(document: Path, name: str, table: str) -> None:
    """Replace what stands between the markers of `name` in `document`.

    Raises:
        UsageError: the document lacks the markers.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    text = document.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise UsageError(f"{document} has no markers {begin.strip()} and {end}", hint="add both, each on its line")
    document.write_text(before + begin + table.strip() + "\n" + end + after, encoding="utf-8")
