"""Random histories in which nodes are lost and come back, over the state of `test_state_random_commands`.

A lost node's attempts stay booked while others take their place, so an allocation may have several
bookings; of those at most one is not on a node that was lost under it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from scheduler import commands
from scheduler.evaluations import due_ms
from scheduler.explain import explain
from scheduler.model import Capacity, Exit
from tests.simulation.test_state_random_commands import ENDS, RandomCommands, jobs, nodes
from tests.support.scheduler_world import job


class RandomLosses(RandomCommands):
    """One history with losses."""

    def __init__(self) -> None:
        super().__init__()
        self.forsaken: dict[tuple[str, int], None] = {}
        """Bookings whose node was declared lost since they were made."""

    @rule(node=nodes, stale=st.sampled_from([False, False, False, True]))
    def lose(self, node: str, stale: bool) -> None:
        entry = self.state.registration(node)
        if entry is None:
            return
        loss = commands.Loss(node, entry.incarnation, entry.registered_index - stale, 1)
        result = self.apply(commands.NodesLost((loss,), "n1", self.now_ms))
        assert bool(result.lost) == (not stale and not entry.lost_index)
        if result.lost:
            self.forsaken.update(dict.fromkeys(key for key, held in self.ledger.items() if held["node"] == node))
            self.seen["lost"] += 1

    @rule(node=nodes)
    def settle(self, node: str) -> None:
        entry = self.state.registration(node)
        if entry is not None and not entry.settled:
            self.apply(commands.NodeSettled(node, entry.registered_index, self.now_ms))

    @rule(name=jobs, replicas=st.integers(1, 4), grace_s=st.integers(0, 3))
    def submit_strict(self, name: str, replicas: int, grace_s: int) -> None:
        spec = job(name, replicas=replicas, cpu_millicores=50, memory_bytes=10, pids=1, on_disconnect="stop",
                   grace_s=grace_s)  # fmt: skip
        self.requests += 1
        self.apply(commands.SubmitJob(spec, f"strict{self.requests}", -1, self.now_ms))

    @rule(node=nodes, name=jobs)
    def strike(self, node: str, name: str) -> None:
        """What comes rarely by chance: something that may be replaced is placed, lost, and drafted again."""
        self.submit_strict(name=name, replicas=3, grace_s=1)
        self.schedule(absent=[], limit=8)
        self.lose(node=node, stale=False)
        self.schedule(absent=[], limit=8)

    def _follow(self, result: Any, command: commands.Command) -> None:
        for kind, fields in result.changes:
            if kind != "place" or fields["do"] == "refuse":
                continue
            key = (fields["allocation"], fields["epoch"])
            if fields["do"] == "bind":
                others = [other for other in self.ledger if other[0] == key[0]]
                assert all(other in self.forsaken for other in others), "only what was on a lost node is replaced"
                self.ledger[key] = fields
                self._fits(fields["node"], fields["requests"])
                self.seen["replaced"] += bool(others)
            else:
                assert self.ledger.pop(key)["node"] == fields["node"]
                self.forsaken.pop(key, None)

    @precondition(lambda self: self.ledger)
    @rule(pick=st.integers(0, 10**6), end=st.sampled_from((None, *ENDS)), old=st.booleans())
    def report(self, pick: int, end: Exit | None, old: bool) -> None:
        """What a lost node says counts only once it is back."""
        allocation, epoch = sorted(self.ledger)[pick % len(self.ledger)]
        node = self.ledger[allocation, epoch]["node"]
        self.sequence += 1
        state = "running" if end is None else "exited"
        status = commands.AllocationStatus(allocation, epoch, self.sequence, state, 7, "cg", end)
        entry = self.state.registration(node)
        result = self.apply(commands.ReportStatus(node, self.boots[node][1], (status,), self.now_ms))
        if entry is not None and entry.lost_index:
            assert result.code == "node-lost"
        else:
            assert result.applied == 1
            assert ((allocation, epoch) in self.ledger) == (end is None)

    @rule(node=nodes, boot=st.sampled_from(["b1", "b1", "b1", "b2"]), incarnation=st.sampled_from(["i1", "i1", "i2"]))
    def come_back(self, node: str, boot: str, incarnation: str) -> None:
        self.register(node=node, cpu=900, memory=900, pids=90, boot=boot, incarnation=incarnation)

    def register(self, node: str, cpu: int, memory: int, pids: int, boot: str, incarnation: str) -> None:
        capacity = Capacity(cpu, memory, pids)
        result = self.apply(commands.RegisterNode(node, incarnation, boot, capacity, "full", "", "", self.now_ms))
        if result.ok:
            self.capacity[node], self.boots[node] = capacity, (boot, incarnation)
        else:
            assert result.code == "node-in-use"

    @invariant()
    def the_queues_hold_exactly_what_the_rule_says(self) -> None:
        books = self.state.books
        for record in books.jobs:
            for ordinal in range(len(record.newest)):
                wanted = due_ms(record, books.attempts, ordinal) is not None
                assert wanted == (ordinal in record.waiting)

    @invariant()
    def counts_add_up_and_every_job_can_be_explained(self) -> None:
        for record in self.state.books.jobs:
            live = sum(1 for allocation, _ in self.ledger if allocation.startswith(f"{record.id}."))
            assert record.live == live == sum(record.per_node.values())
            found = explain(self.state, record.id, self.now_ms)
            assert found is not None
            assert found["reason"]

    @invariant()
    def an_allocation_is_assigned_once_and_what_was_replaced_is_to_stop(self) -> None:
        assigned = [item.allocation for node in self.boots for item in self.state.desired_for(node)[0]]
        assert len(assigned) == len(dict.fromkeys(assigned))

    @invariant()
    def nothing_is_sure_on_a_lost_node(self) -> None:
        for node in self.boots:
            entry = self.state.registration(node)
            assert entry is not None
            if entry.lost_index:
                held = [key for key, fields in self.ledger.items() if fields["node"] == node]
                assert sorted(self.state.unsure_on(node)) == sorted(held)


def test_every_random_history_of_losses_keeps_the_promises_of_the_state() -> None:
    seen: dict[str, int] = {}

    class Counted(RandomLosses):
        def teardown(self) -> None:
            for name in ("lost", "replaced"):
                seen[name] = seen.get(name, 0) + self.seen[name]

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert seen["lost"] > 20
    assert seen["replaced"] > 0, "a history in which something was replaced"
