"""What isolation adds to a start: ``python -m tests.bench.isolated_start`` as root.

Two sandboxers side by side, one of which gives no user namespaces, are asked in turn for the same program with each
network.  The time is from the request to its answer, which comes once the program's exec succeeded; CPU time is of the
sandboxer, the workload's init and its program, to their end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agents.sandbox_launch import SandboxerOptions, launch
from agents.sandboxer import users
from tests.integration.qemu.conformance import Client

NETWORKS = ("host", "none", "bridge")
STARTS = 10
"""Of a kind, one after another, in a round."""


class Node:
    """One sandboxer."""

    def __init__(self, numbers: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="skerry-bench-"))
        name = f"bench{os.getpid()}{'u' if numbers else 'd'}"
        options = SandboxerOptions(node=name, cluster="bench", users=numbers)
        failed = launch(self.directory, options)
        if failed:
            raise SystemExit(failed)
        self.client = Client(self.directory)
        self.count = 0

    def start_ms(self, network: str) -> float:
        """One start and the end of it."""
        self.count += 1
        allocation = f"b/{network}.{self.count}"
        began = time.perf_counter_ns()
        self.client.start(allocation, "/bin/true", network=network)
        took = (time.perf_counter_ns() - began) / 1e6
        self.client.exit_of(allocation)
        self.client.ask("forget", allocation=allocation, epoch=1)
        return took

    def cpu_ms(self) -> float:
        """CPU time of the sandboxer and of the processes that it started and reaped, to now."""
        fields = Path(f"/proc/{self.client.hello['pid']}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) * 1000 / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Leave nothing."""
        self.client.ask("shutdown", stop_workloads=True)
        self.client.sock.close()
        shutil.rmtree(self.directory)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    nodes = {"without": Node(users.OFF), "with": Node("")}
    keys = [(network, which) for network in NETWORKS for which in nodes]
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    used: dict[tuple[str, str], float] = dict.fromkeys(keys, 0.0)
    try:
        for number in range(options.rounds + 1):
            for key in keys:
                node = nodes[key[1]]
                before = node.cpu_ms()
                times = [node.start_ms(key[0]) for _ in range(STARTS)]
                if number:  # the first round loads code and makes the bridge
                    taken[key] += times
                    used[key] += node.cpu_ms() - before
    finally:
        for node in nodes.values():
            node.end()
    print("| network | user namespace | p50 ms | p95 ms | CPU ms |")
    for key, values in taken.items():
        p95 = statistics.quantiles(values, n=20)[-1]
        print(f"| {key[0]} | {key[1]} | {statistics.median(values):.2f} | {p95:.2f} | {used[key] / len(values):.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
