"""What holds for the sandboxer's decisions whatever happens in whatever order."""

from __future__ import annotations

import sys

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents.sandboxer import events as ev
from agents.sandboxer.core import Core
from agents.sandboxer.spec import Key, parse

MS = 1_000_000
ALLOCATIONS = st.sampled_from(["default/a.0", "default/b.0"])
EPOCHS = st.integers(1, 6)
STATUSES = st.sampled_from([ev.Status(0, None), ev.Status(3, None), ev.Status(None, 9), ev.Status(None, None)])


class Node(RuleBasedStateMachine):
    """A core, and a model of the processes that its effects would make."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(ev.Memory({}, ()), 0)
        self.now_ms = 0
        self.pending: list[ev.Journal] = []
        self.intents: set[Key] = set()
        self.alive: dict[Key, bool] = {}
        self.spawned: list[Key] = []
        self.exited: dict[Key, int] = {}
        self.released: set[Key] = set()
        self.durable_exits: set[Key] = set()
        self.fenced: dict[str, int] = {}
        self.journal_works = True
        self.finished = False
        self.request = 0
        self.open: set[int] = set()

    def step(self, event: ev.Event) -> None:
        for effect in self.core.step(event, self.now_ms * MS):
            self.carry_out(effect)

    def carry_out(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Journal():
                self.pending.append(effect)
            case ev.Spawn():
                key = effect.spec.card.key
                assert key in self.intents, "spawned before its intent was durable"
                assert key not in self.spawned, "spawned twice"
                assert key[1] > self.fenced.get(key[0], 0), "spawned although fenced"
                assert not any(other[0] == key[0] for other, runs in self.alive.items() if runs), "two attempts at once"
                self.spawned.append(key)
                self.alive[key] = True
            case ev.Announce() if effect.kind == "exited":
                key = (effect.record["allocation"], effect.record["epoch"])
                assert not self.alive.get(key), "an exit was announced of what still runs"
                assert key not in self.exited, "two exits of one attempt"
                self.exited[key] = effect.sequence
            case ev.Release():
                assert not self.alive.get(effect.key), "a cgroup was removed under its processes"
                assert effect.key in self.durable_exits or not self.journal_works, "removed before its exit was durable"
            case ev.Reply() | ev.Refuse():
                assert effect.caller.request in self.open, "answered twice"
                self.open.discard(effect.caller.request)
            case ev.Finish():
                assert not any(self.alive.values()), "finished with workloads running"
                self.finished = True
            case _:
                pass

    def caller(self) -> ev.Caller:
        self.request += 1
        self.open.add(self.request)
        return ev.Caller(1, self.request)

    @rule(allocation=ALLOCATIONS, epoch=EPOCHS, word=st.sampled_from(["x", "y"]))
    def start(self, allocation: str, epoch: int, word: str) -> None:
        fields = {
            "allocation": allocation,
            "epoch": epoch,
            "attempt": 1,
            "job": "default/a",
            "command": [word],
            "env": {},
            "cpu_millicores": 0,
            "memory_bytes": 0,
            "pids": 0,
            "grace_ms": 50,
            "on_disconnect": "keep",
        }
        self.step(ev.StartAsked(self.caller(), parse(fields)))

    @rule(allocation=ALLOCATIONS, epoch=EPOCHS, grace=st.sampled_from([0, 20]))
    def stop(self, allocation: str, epoch: int, grace: int) -> None:
        self.fenced[allocation] = max(self.fenced.get(allocation, 0), epoch)
        self.step(ev.StopAsked(self.caller(), allocation, epoch, grace))

    @rule(allocation=ALLOCATIONS, epoch=EPOCHS)
    def forget(self, allocation: str, epoch: int) -> None:
        self.step(ev.ForgetAsked(self.caller(), allocation, epoch))

    @rule(count=st.integers(1, 4))
    def sync(self, count: int) -> None:
        if not self.journal_works:
            return
        written, self.pending = self.pending[:count], self.pending[count:]
        for entry in written:
            key = (str(entry.record.get("a")), int(entry.record.get("e", 0)))
            if entry.record["k"] == "intent":
                self.intents.add(key)
            elif entry.record["k"] == "exited":
                self.durable_exits.add(key)
        if written:
            self.step(ev.Journaled(written[-1].sequence))

    @rule()
    def break_journal(self) -> None:
        self.journal_works = False
        self.step(ev.JournalFailed("no space"))

    @rule()
    def mend_journal(self) -> None:
        if not self.journal_works:
            self.journal_works = True
            self.step(ev.JournalRecovered())

    @rule(index=st.integers(0, 3), status=STATUSES, oom=st.integers(0, 1), executed=st.booleans())
    def live_and_die(self, index: int, status: ev.Status, oom: int, executed: bool) -> None:
        running = [key for key in self.spawned if self.alive[key]]
        if not running:
            return
        key = running[index % len(running)]
        self.step(ev.Spawned(key, 50, 0))
        if executed:
            self.step(ev.Executed(key))
        self.step(ev.MainExited(key, status, oom))
        self.alive[key] = False
        self.step(ev.GroupEmpty(key))

    @rule(index=st.integers(0, 3))
    def execute(self, index: int) -> None:
        running = [key for key in self.spawned if self.alive[key]]
        if running:
            self.step(ev.Spawned(running[index % len(running)], 50, 0))
            self.step(ev.Executed(running[index % len(running)]))

    @rule(elapsed_ms=st.integers(0, 100))
    def wait(self, elapsed_ms: int) -> None:
        self.now_ms += elapsed_ms
        self.step(ev.Tick())

    @invariant()
    def every_spawned_attempt_is_known_until_it_is_forgotten(self) -> None:
        live = set(self.core.live())
        assert {key for key, runs in self.alive.items() if runs} <= live

    @invariant()
    def sequences_rise(self) -> None:
        assert list(self.exited.values()) == sorted(set(self.exited.values()))

    def teardown(self) -> None:
        """Shutting down ends everything, and every request was answered."""
        self.mend_journal()
        self.step(ev.ShutdownAsked(None, True))
        self.now_ms += 10_000
        self.step(ev.Tick())
        for _ in range(200):
            self.sync(100)
            for key in [key for key, runs in self.alive.items() if runs]:
                self.step(ev.MainExited(key, ev.Status(None, 9), 0))
                self.alive[key] = False
                self.step(ev.GroupEmpty(key))
            if self.finished and not self.pending:
                break
        if sys.exc_info()[0] is not None:
            return  # the step that failed says why
        assert self.finished, "a shutdown never finished"
        assert not self.open, "a request was never answered"


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
