"""Rules about applying, over what the real state tells: nothing against it, and something against one with a bug."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from chaos.trace.checkers import CHECKERS
from chaos.trace.checkers.base import Finding
from chaos.trace.events import Event, Trace
from scheduler import commands
from scheduler.state import reporting
from scheduler.state.columns import Table
from scheduler.state.reporting import is_news
from tests.support.scheduler_world import BAD, OK, World, job

RULES = (
    "no-slot-leaked",
    "status-in-order",
    "applied-once",
    "capacity",
    "one-bind-per-attempt",
    "one-effect-per-request",
)


class Told(World):
    """A world whose changes are kept as a replica's trace."""

    def __init__(self, *nodes: str, **options: Any) -> None:
        self.events: list[Event] = []
        super().__init__(*nodes, **options)

    def apply(self, command: commands.Command) -> Any:
        result = super().apply(command)
        for kind, fields in (*result.changes, *result.traced):
            number = len(self.events) + 1
            self.events.append(Event((1000 + number) << 16, "n1", "x", number, 1.0 + number / 1000, kind, fields))
        return result

    def finding(self, rule: str) -> Finding:
        """What a rule says of it so far."""
        return CHECKERS[rule](Trace(self.events))


def lived(seed: int) -> Told:
    """Jobs come, run, end, are repeated, and are forgotten."""
    dice, world = Random(seed), Told("a1", "a2", cpu=2000)
    for turn in range(40):
        name = f"j{dice.randrange(6)}"
        if dice.random() < 0.4:
            world.submit(job(name, kind="batch", replicas=dice.randint(1, 3)), request=f"{name}.{dice.randrange(4)}")
        world.schedule()
        for item in [each for each in world.state.jobs() if each["counts"].get("placed") or turn % 3 == 0]:
            for ordinal in range(3):
                shown = world.state.allocation(f"{item['job']}.{ordinal}")
                if shown is not None and shown["state"] in ("placed", "running") and dice.random() < 0.6:
                    world.runs(f"{item['job']}.{ordinal}")
                    world.report(f"{item['job']}.{ordinal}", "running", sequence=1)  # an old one, ignored
                    world.ends(f"{item['job']}.{ordinal}", dice.choice((OK, OK, BAD)))
        world.now_ms += 40_000
        if turn % 5 == 4:
            world.apply(commands.Collect(world.now_ms, 0, 100, world.now_ms))
    return world


@pytest.mark.parametrize("seed", range(5))
def test_the_rules_have_nothing_to_say_against_the_real_state(seed: int) -> None:
    world = lived(seed)
    for rule in RULES:
        found = world.finding(rule)
        assert (found.ok, found.detail) == (True, ""), found
        assert found.checked > 3


def test_rows_that_are_not_given_back_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "free_many", lambda self, rows: None)
    assert lived(1).finding("no-slot-leaked").ok is False


def test_reports_that_overtake_each_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_news is reporting.is_news
    monkeypatch.setattr(reporting, "is_news", lambda *anything: True)
    assert lived(1).finding("status-in-order").ok is False
