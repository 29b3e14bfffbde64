"""How long freezing, writing and reading back the replicated state takes, and how long it holds the event loop.

Owns: building a large state through its own commands, and the measurements.  Must not know: the command line.

Everything happens in one process without consensus: what is measured is the state itself.  `hold` is the time
for which an event loop would stand still.
"""

from __future__ import annotations

import gc
import statistics
import sys
import threading
import time
from typing import Any

from cluster.host import GC_FIRST_GENERATION
from scheduler import commands
from scheduler.model import Capacity, Limits, ResolvedJob, RestartPolicy, Workload
from scheduler.replica import SWITCH_INTERVAL_S
from scheduler.state import State
from scheduler.state.paged import Objects

NOW_MS = 1_000_000
PLAN = 256


def run_bench(*, allocations: int, nodes: int, jobs: int, runs: int) -> dict[str, Any]:
    """Medians of `runs` over one state of that size."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    state = build(allocations, nodes, jobs)
    gc.collect()
    gc.freeze()  # as a replica does
    gc.set_threshold(GC_FIRST_GENERATION, 20, 50)
    found = [measure(state) for _ in range(runs)]
    medians = {key: statistics.median(one[key] for one in found) for key in found[0]}
    worst = {f"{key}_max": max(one[key] for one in found) for key in ("freeze_ms", "apply_beside_ms")}
    return {"allocations": allocations, "nodes": nodes, "jobs": jobs, "runs": runs, **medians, **worst}


def build(allocations: int, nodes: int, jobs: int) -> State:
    """A state in which all of `allocations` run, each with its cgroup, dealt out to `nodes` in turn."""
    state = State()
    for number in range(nodes):
        capacity = Capacity(1 << 30, 1 << 50, 1 << 30)
        _apply(state, commands.RegisterNode(f"n{number}", "i1", "b1", capacity, "full", "", f"10.0.0.{number}", NOW_MS))
    each = allocations // jobs
    names: list[str] = []
    for number in range(jobs):
        spec = ResolvedJob(_workload(number), each, 100, 64 << 20, 10, RestartPolicy.ALWAYS, -1)
        _apply(state, commands.SubmitJob(spec, f"r{number}", -1, NOW_MS))
        names.extend(f"default/job-{number}.{ordinal}" for ordinal in range(each))
    for turn, first in enumerate(range(0, len(names), PLAN)):
        _run(state, names[first : first + PLAN], f"n{turn % nodes}")
    return state


def _run(state: State, names: list[str], node: str) -> None:
    placements = tuple(commands.Placement(name, 1, 1, node, 1) for name in names)
    _apply(state, commands.Plan(placements, "n1", "bench", NOW_MS))
    epoch = state.index
    reports = tuple(
        commands.AllocationStatus(name, epoch, 1, "running", 4242, f"/skerry-dev-{node}/{name}@{epoch}", None)
        for name in names
    )
    _apply(state, commands.ReportStatus(node, "i1", reports, NOW_MS))


def measure(state: State) -> dict[str, float]:
    """One round of figures, in milliseconds unless named otherwise."""
    _touch_everything(state)
    started = time.perf_counter()
    frozen = state.freeze()
    freeze_s = time.perf_counter() - started
    chunks: list[bytes] = []
    writer = threading.Thread(target=lambda: chunks.extend(frozen.chunks()))
    began = time.perf_counter()
    writer.start()
    holds = _apply_beside(state, writer)
    writer.join()
    write_s = time.perf_counter() - began
    again = State()
    began = time.perf_counter()
    again.restore(frozen.index, frozen.term, chunks)
    restore_s = time.perf_counter() - began
    began = time.perf_counter()
    state.digest()
    return {
        "freeze_ms": freeze_s * 1e3,
        "write_ms": write_s * 1e3,
        "size_mib": sum(map(len, chunks)) / (1 << 20),
        "apply_beside_ms": max(holds) * 1e3,
        "apply_beside_p50_ms": statistics.median(holds) * 1e3,
        "restore_ms": restore_s * 1e3,
        "digest_after_changes_ms": (time.perf_counter() - began) * 1e3,
    }


def _apply_beside(state: State, writer: threading.Thread) -> list[float]:
    """Cordon and uncordon while the writer works; how long each took, waiting for the interpreter included."""
    holds = [0.0]
    count = len(state.books.nodes)
    while writer.is_alive():
        number = len(holds)
        word = "cordoned" if (number // count) % 2 == 0 else "ready"
        started = time.perf_counter()
        _apply(state, commands.SetNodeState(f"n{number % count}", word, NOW_MS))
        holds.append(time.perf_counter() - started)
        time.sleep(0.001)
    return holds


def _touch_everything(state: State) -> None:
    """Leave no page that an earlier freeze has at hand: each column page is written once."""
    for table in (state.books.attempts.table, state.books.nodes.table):
        for column in table.columns.values():
            for row in range(0, table.rows, 4096):
                column[row] = column[row]
    sides: tuple[Objects[Any], ...] = (state.books.attempts.cgroups, state.books.jobs.rows, state.books.nodes.entries)
    for objects in sides:
        for number in [number for number, _ in objects.items()][::256]:
            objects[number] = objects[number]


def _workload(number: int) -> Workload:
    return Workload(
        f"job-{number}", "default", "service", ("/bin/sleep", "3600"), {"LEVEL": "3"}, Limits(200, 128 << 20, 512),
        (), 5, "keep",
    )  # fmt: skip


def _apply(state: State, command: commands.Command) -> None:
    state.apply(state.index + 1, 1, commands.encode(command))


def markdown_table(results: list[dict[str, Any]]) -> str:
    """The table for `docs/benchmarks.md`."""
    names = {
        "freeze_ms": "freeze: hold of the loop, ms (worst)",
        "apply_beside_ms": "longest command while it is written, ms (worst)",
        "write_ms": "written by the thread in, ms",
        "size_mib": "size, MiB",
        "restore_ms": "read back, checked and derived in, ms",
        "digest_after_changes_ms": "digest after few changes, ms",
    }
    head = [f"{r['allocations']:,} in {r['jobs']:,} jobs on {r['nodes']:,} nodes" for r in results]
    lines = ["| figure | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(results)]
    for key, name in names.items():
        cells = []
        for result in results:
            worst = f" ({result[f'{key}_max']:.1f})" if f"{key}_max" in result else ""
            cells.append(f"{result[key]:.1f}{worst}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
