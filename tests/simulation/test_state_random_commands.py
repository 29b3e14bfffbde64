"""Random histories of commands over the replicated state, with its promises checked after each one.

Two states get the same bytes; a plain ledger beside them knows what was placed and what was
reported over, and nothing else.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scheduler import commands
from scheduler.engine import draft
from scheduler.evaluations import due_ms, pending
from scheduler.explain import explain
from scheduler.lifecycle import LIVE
from scheduler.model import (
    Capacity,
    Exit,
    LabelSelector,
    Neighbours,
    NeighbourTerm,
    NodeTerm,
    Requirement,
    Rules,
    SpreadConstraint,
    Taint,
    TaintEffect,
    Toleration,
)
from scheduler.state import State
from scheduler.state.snapshot import FrozenState
from tests.support.scheduler_world import BAD, LOST, OK, OOM, STOPPED, job
from tests.support.state_views import whole

NODES = ("a1", "a2", "a3")
JOBS = ("x", "y")
ENDS = (OK, BAD, OOM, LOST, STOPPED)

nodes = st.sampled_from(NODES)
jobs = st.sampled_from(JOBS)
Booking = tuple[str, int]


def near(*words: str) -> LabelSelector:
    return LabelSelector({}, (Requirement("skerry/job", "In", words),))


RULES = {
    3: Rules(neighbours=Neighbours(apart=(NeighbourTerm("skerry/node", near("x", "y")),))),
    4: Rules(spread=(SpreadConstraint("skerry/node", label_selector=near("x", "y")),)),
    5: Rules(node_terms=(NodeTerm((Requirement("disk", "NotIn", ("b",)),)),)),
} | dict.fromkeys((0, 1, 2, 6), Rules())


class RandomCommands(RuleBasedStateMachine):
    """One history."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.twin = State(), State()
        self.restarted = State()
        """Replaced now and then by what is read back from a frozen `state`."""
        self.held: tuple[FrozenState, bytes] | None = None
        self.now_ms = 1_000
        self.sequence = 0
        self.ledger: dict[Booking, dict[str, Any]] = {}
        """(allocation, epoch) → node, requests, ports of what was bound and not released."""
        self.capacity: dict[str, Capacity] = {}
        self.boots: dict[str, tuple[str, str]] = {}
        self.granted: dict[tuple[str, str], tuple[bytes, int, int, str]] = {}
        self.requests = 0
        self.seen: Counter[str] = Counter()

    def apply(self, command: commands.Command) -> Any:
        data = commands.encode(command)
        index = self.state.index + 1
        result, twin = self.state.apply(index, 1, data), self.twin.apply(index, 1, data)
        assert result == twin == self.restarted.apply(index, 1, data)
        self._follow(result, command)
        return result

    @initialize(cpu=st.integers(300, 900), replicas=st.integers(2, 5), ask=st.integers(50, 250))
    def begin(self, cpu: int, replicas: int, ask: int) -> None:
        """Two nodes and a job, so that something happens from the first step on."""
        for node in NODES[:2]:
            self.register(node=node, cpu=cpu, memory=900, pids=90, boot="b1", incarnation="i1")
        self.submit(name="x", replicas=replicas, cpu=ask, memory=10, ports=[], kind="service", policy="OnFailure",
                    expected=-1)  # fmt: skip
        self.schedule(absent=[], limit=3)

    def _follow(self, result: Any, command: commands.Command) -> None:
        may_release = isinstance(command, commands.ReportStatus | commands.RegisterNode)
        for kind, fields in result.changes:
            if kind != "place":
                continue
            if fields["do"] == "refuse":
                self.seen[f"refuse {fields['why'].partition(':')[0]}"] += 1
                continue
            self.seen[fields["do"]] += 1
            key = (fields["allocation"], fields["epoch"])
            if fields["do"] == "bind":
                assert isinstance(command, commands.Plan)
                assert not [other for other in self.ledger if other[0] == key[0]], "one live attempt an allocation"
                self.ledger[key] = fields
                self._fits(fields["node"], fields["requests"])
            else:
                assert may_release, "only a node's report or reboot frees capacity"
                assert self.ledger.pop(key)["node"] == fields["node"]

    def _fits(self, node: str, asked: dict[str, int]) -> None:
        capacity = self.capacity[node]
        for key, most in (
            ("cpu_millicores", capacity.cpu_millicores),
            ("memory_bytes", capacity.memory_bytes),
            ("pids", capacity.pids),
        ):
            booked = sum(fields["requests"][key] for fields in self.ledger.values() if fields["node"] == node)
            assert asked[key] == 0 or booked <= most, f"{node} is over its {key}"

    @rule(node=nodes, cpu=st.integers(0, 900), memory=st.integers(0, 900), pids=st.integers(0, 90),
          boot=st.sampled_from(["b1", "b1", "b1", "b2"]), incarnation=st.sampled_from(["i1", "i1", "i2"]))  # fmt: skip
    def register(self, node: str, cpu: int, memory: int, pids: int, boot: str, incarnation: str) -> None:
        rebooted = node in self.boots and self.boots[node][0] != boot
        held = [key for key, fields in self.ledger.items() if fields["node"] == node]
        self.apply(
            commands.RegisterNode(node, incarnation, boot, Capacity(cpu, memory, pids), "full", "", "", self.now_ms)
        )
        self.capacity[node], self.boots[node] = Capacity(cpu, memory, pids), (boot, incarnation)
        assert [key for key in held if key in self.ledger] == ([] if rebooted else held)

    @rule(
        name=jobs,
        replicas=st.integers(0, 4),
        cpu=st.integers(0, 300),
        memory=st.integers(0, 300),
        ports=st.lists(st.sampled_from([80, 81]), unique=True, max_size=1),
        kind=st.sampled_from(["service", "batch"]),
        policy=st.sampled_from(["OnFailure", "Never"]),
        expected=st.sampled_from([-1, -1, -1, -1, 1]),
    )
    def submit(self, name: str, replicas: int, cpu: int, memory: int, ports: list[int], kind: str, policy: str,
               expected: int) -> None:  # fmt: skip
        self.requests += 1
        spec = job(name, replicas=replicas, cpu_millicores=cpu, memory_bytes=memory, ports=tuple(ports), kind=kind,
                   restart_policy=policy, backoff_limit=1, priority=cpu % 3,
                   node_selector=(("disk", "a"),) if memory % 16 == 1 else (),
                   tolerations=(Toleration("dedicated", "Exists"),) if memory % 2 else (),
                   rules=RULES[cpu % 7])  # fmt: skip
        request = f"r{self.requests}"
        result = self.apply(commands.SubmitJob(spec, request, expected, self.now_ms))
        if not result.code:
            body = commands.encode(commands.SubmitJob(spec, request, expected, 0))
            self.granted[name, request] = (body, result.index, result.version, result.outcome)

    @precondition(lambda self: self.granted)
    @rule(pick=st.integers(0, 10**6), later=st.integers(0, 5000))
    def submit_again(self, pick: int, later: int) -> None:
        key = sorted(self.granted)[pick % len(self.granted)]
        body, index, version, outcome = self.granted[key]
        command = commands.decode(body)
        assert isinstance(command, commands.SubmitJob)
        record = self.state.books.jobs.by_id[f"default/{key[0]}"]
        if key[1] not in record.requests:
            return
        before = record.version
        result = self.apply(
            commands.SubmitJob(command.job, command.request_id, command.expected_version, self.now_ms + later)
        )
        assert (result.index, result.version, result.outcome, result.repeated) == (index, version, outcome, True)
        assert record.version == before

    @rule(name=jobs)
    def stop(self, name: str) -> None:
        self.requests += 1
        self.apply(commands.StopJob("default", name, f"r{self.requests}", self.now_ms))

    @rule(absent=st.lists(nodes, max_size=1), limit=st.integers(1, 8))
    def schedule(self, absent: list[str], limit: int) -> None:
        made = draft(self.state, self.now_ms, limit=limit, absent=absent)
        assert made == draft(self.twin, self.now_ms, limit=limit, absent=absent)
        result = self.apply(commands.Plan(made.placements, "n1", "random", self.now_ms))
        assert result.refused == (), "a plan for the present state is never refused"

    @rule(node=nodes, limit=st.integers(1, 6))
    def plan_blindly(self, node: str, limit: int) -> None:
        """What waits goes to one node, whether it fits or not."""
        entry = self.state.registration(node)
        items = pending(self.state, self.now_ms, limit=limit)
        placements = tuple(
            commands.Placement(
                item.allocation,
                item.attempt,
                self.state.job_version(item.job),
                node,
                entry.generation if entry else 1,
            )
            for item in items
        )
        result = self.apply(commands.Plan(placements, "n3", "blind", self.now_ms))
        assert len(result.placed) + len(result.refused) == len(placements)

    @rule(name=jobs, ordinal=st.integers(0, 5), attempt=st.integers(1, 3), version=st.integers(0, 3), node=nodes,
          generation=st.integers(1, 3), copies=st.integers(1, 2))  # fmt: skip
    def plan_anything(
        self, name: str, ordinal: int, attempt: int, version: int, node: str, generation: int, copies: int
    ) -> None:
        placement = commands.Placement(f"default/{name}.{ordinal}", attempt, version, node, generation)
        self.apply(commands.Plan((placement,) * copies, "n2", "random", self.now_ms))

    @precondition(lambda self: self.ledger)
    @rule(pick=st.integers(0, 10**6), end=st.sampled_from((None, *ENDS)), old=st.booleans())
    def report(self, pick: int, end: Exit | None, old: bool) -> None:
        allocation, epoch = sorted(self.ledger)[pick % len(self.ledger)]
        node = self.ledger[allocation, epoch]["node"]
        self.sequence += 1
        status = commands.AllocationStatus(
            allocation, epoch, -1 if old else self.sequence, "running" if end is None else "exited", 7, "cg", end
        )
        result = self.apply(commands.ReportStatus(node, self.boots[node][1], (status,), self.now_ms))
        assert (result.applied, result.stale) == ((0, 1) if old else (1, 0))
        assert ((allocation, epoch) in self.ledger) == (old or end is None)

    @rule(node=nodes, name=jobs, ordinal=st.integers(0, 5), epoch=st.integers(1, 60), exited=st.booleans())
    def report_anything(self, node: str, name: str, ordinal: int, epoch: int, exited: bool) -> None:
        key = (f"default/{name}.{ordinal}", epoch)
        if key in self.ledger and self.ledger[key]["node"] == node:
            return
        self.sequence += 1
        status = commands.AllocationStatus(
            *key, self.sequence, "exited" if exited else "running", 7, "cg", OK if exited else None
        )
        before = dict(self.ledger)
        result = self.apply(commands.ReportStatus(node, self.boots.get(node, ("", "?"))[1], (status,), self.now_ms))
        assert self.ledger == before
        if result.unknown:
            stops = self.apply(commands.StopUnknown(node, result.unknown, self.now_ms)).stops
            assert stops == result.unknown

    @rule(node=nodes, state=st.sampled_from(["ready", "cordoned"]))
    def cordon(self, node: str, state: str) -> None:
        self.apply(commands.SetNodeState(node, state, self.now_ms))

    @rule(by_ms=st.sampled_from([1, 1000, 40_000, 100_000]))
    def wait(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule(data=st.binary(max_size=30))
    def garbage(self, data: bytes) -> None:
        index = self.state.index + 1
        for state in (self.state, self.twin, self.restarted):
            assert state.apply(index, 1, data).code == "bad-command"

    @rule()
    def restart(self) -> None:
        """What was frozen earlier has not changed since; what is frozen now can be read back."""
        if self.held is not None:
            frozen, before = self.held
            assert b"".join(frozen.chunks()) == before
        data = b"".join(self.state.freeze().chunks())
        self.held = (self.state.freeze(), data)
        self.restarted = State()
        self.restarted.restore(self.state.index, self.state.term, [data])
        self.seen["restart"] += 1

    @rule(node=nodes, key=st.sampled_from(["disk", "zone"]), value=st.sampled_from(["a", "b"]), remove=st.booleans())
    def label(self, node: str, key: str, value: str, remove: bool) -> None:
        put, gone = ({}, (key,)) if remove else ({key: value}, ())
        self.apply(commands.SetNodeLabels(node, put, gone, self.now_ms))

    @rule(node=nodes, effect=st.sampled_from(list(TaintEffect)), remove=st.booleans())
    def taint(self, node: str, effect: TaintEffect, remove: bool) -> None:
        put = () if remove else (Taint("dedicated", "db", effect),)
        gone = (("dedicated", effect.value),) if remove else ()
        self.apply(commands.SetNodeTaints(node, put, gone, self.now_ms))

    @rule(
        before_ms=st.sampled_from([0, 1_000, 50_000, 10**9]),
        keep=st.sampled_from([0, 1, 3, 100]),
        at_once=st.integers(1, 6),
    )
    def collect(self, before_ms: int, keep: int, at_once: int) -> None:
        result = self.apply(commands.Collect(before_ms, keep, at_once, self.now_ms))
        for name in result.jobs:
            assert not [key for key in self.ledger if key[0].startswith(f"{name}.")], "what is booked is not garbage"
            for key in [key for key in self.granted if f"default/{key[0]}" == name]:
                del self.granted[key]
            self.seen["collect"] += 1

    @invariant()
    def the_twins_agree(self) -> None:
        assert self.state.digest() == self.twin.digest() == self.restarted.digest()
        if self.state.index % 16 == 0:
            assert whole(self.restarted) == whole(self.state)

    @invariant()
    def what_is_booked_is_what_the_ledger_says(self) -> None:
        for shown in self.state.nodes():
            held = [fields for fields in self.ledger.values() if fields["node"] == shown["id"]]
            for key, amount in shown["allocated"].items():
                assert amount == sum(fields["requests"][key] for fields in held)
            ports = [port for fields in held for port in fields["ports"]]
            assert len(ports) == len(set(ports)), "a port has one holder"
            detail = self.state.node(shown["id"])
            assert detail is not None
            assert detail["ports"] == sorted(ports)

    @invariant()
    def the_queues_hold_exactly_what_the_rule_says(self) -> None:
        books = self.state.books
        for record in books.jobs:
            for ordinal in range(len(record.newest)):
                wanted = due_ms(record, books.attempts, ordinal) is not None
                assert wanted == (ordinal in record.waiting)
            assert bool(len(record.waiting)) == (record.id in books.jobs.waiting)
        ready = {item.allocation for item in pending(self.twin, self.now_ms)}
        assert not ready & {allocation for allocation, _ in self.ledger}

    @invariant()
    def each_node_is_told_to_run_or_to_stop_everything_it_holds(self) -> None:
        for node in self.boots:
            assignments, stops = self.state.desired_for(node)
            told = {(item.allocation, item.epoch) for item in assignments}
            ordered = {(item.allocation, item.epoch) for item in stops}
            held = {key for key, fields in self.ledger.items() if fields["node"] == node}
            assert not told & ordered
            assert told <= held
            assert held <= told | ordered

    @invariant()
    def counts_add_up_and_every_job_can_be_explained(self) -> None:
        for record in self.state.books.jobs:
            live = sum(1 for allocation, _ in self.ledger if allocation.startswith(f"{record.id}."))
            assert record.live == live == sum(record.per_node.values())
            found = explain(self.state, record.id, self.now_ms)
            assert found is not None
            assert found["reason"]
            shown = self.state.job(record.id)
            assert shown is not None
            assert sum(item["state"] in LIVE for item in shown["allocations"]) == live


def test_every_random_history_keeps_the_promises_of_the_state() -> None:
    run_state_machine_as_test(
        RandomCommands,
        settings=settings(
            max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def _step(walk: RandomCommands, dice: random.Random) -> None:
    """One action, weighted so that work is placed, ends and is refused about equally often."""
    node, name = dice.choice(NODES), dice.choice(JOBS)
    match dice.choices(range(14), weights=(1, 3, 1, 6, 6, 8, 1, 1, 3, 1, 1, 1, 1, 1))[0]:
        case 0:
            boot, incarnation = dice.choice(["b1", "b1", "b2"]), dice.choice(["i1", "i1", "i2"])
            walk.register(node=node, cpu=dice.randrange(900), memory=dice.randrange(900), pids=dice.randrange(10, 50),
                          boot=boot, incarnation=incarnation)  # fmt: skip
        case 1:
            walk.submit(name=name, replicas=dice.randrange(6), cpu=dice.randrange(0, 300), memory=dice.randrange(300),
                        ports=dice.choice([[], [], [80], [81]]), kind=dice.choice(["service", "batch"]),
                        policy=dice.choice(["OnFailure", "Never"]), expected=-1)  # fmt: skip
        case 2:
            walk.stop(name=name)
        case 3:
            walk.schedule(absent=[node] if dice.random() < 0.3 else [], limit=dice.randrange(1, 5))
        case 4:
            walk.plan_blindly(node=node, limit=dice.randrange(1, 6))
        case 5 if walk.ledger:
            walk.report(pick=dice.randrange(10**6), end=dice.choice((None, None, *ENDS)), old=dice.random() < 0.2)
        case 6:
            walk.cordon(node=node, state=dice.choice(["ready", "ready", "cordoned"]))
        case 7 if walk.granted:
            walk.submit_again(pick=dice.randrange(10**6), later=dice.randrange(5000))
        case 8:
            walk.wait(by_ms=dice.choice([1, 1000, 40_000]))
        case 10:
            walk.restart()
        case 11:
            walk.label(
                node=node, key=dice.choice(["disk", "zone"]), value=dice.choice("ab"), remove=dice.random() < 0.4
            )
        case 12:
            walk.taint(node=node, effect=dice.choice(list(TaintEffect)), remove=dice.random() < 0.6)
        case 13:
            walk.collect(
                before_ms=dice.choice([0, walk.now_ms]), keep=dice.choice([0, 2, 100]), at_once=dice.randrange(1, 6)
            )
        case _:
            walk.report_anything(node=node, name=name, ordinal=dice.randrange(6), epoch=dice.randrange(1, 99),
                                 exited=dice.random() < 0.5)  # fmt: skip


INVARIANTS = (
    RandomCommands.the_twins_agree,
    RandomCommands.what_is_booked_is_what_the_ledger_says,
    RandomCommands.the_queues_hold_exactly_what_the_rule_says,
    RandomCommands.each_node_is_told_to_run_or_to_stop_everything_it_holds,
    RandomCommands.counts_add_up_and_every_job_can_be_explained,
)


OUTCOMES = ("bind", "release", "restart", "collect", *(f"refuse {code}" for code in (
    "no-cpu", "no-memory", "no-pids", "port-taken", "node-not-ready", "no-such-node", "node-not-selected",
    "node-tainted",
)))  # fmt: skip


def test_long_seeded_walks_keep_them_too_and_reach_every_kind_of_outcome() -> None:
    seen: Counter[str] = Counter()
    for seed in range(24):
        dice = random.Random(seed)
        walk = RandomCommands()
        walk.begin(cpu=dice.randrange(300, 900), replicas=4, ask=dice.randrange(50, 250))
        for _ in range(120):
            _step(walk, dice)
            for holds in INVARIANTS:
                holds(walk)
        seen += walk.seen
    assert [outcome for outcome in OUTCOMES if not seen[outcome]] == [], seen
