"""A sandboxer's core, stepped by hand."""

from __future__ import annotations

from typing import Any, TypeVar

from agents.sandboxer import events as ev
from agents.sandboxer.core import Core
from agents.sandboxer.spec import Card, Spec, parse

MS = 1_000_000
CALLER = ev.Caller(1, 1)
Kind = TypeVar("Kind")


def spec(allocation: str = "default/web.0", epoch: int = 5, **more: Any) -> Spec:
    fields = {
        "allocation": allocation,
        "epoch": epoch,
        "attempt": 1,
        "job": "default/web",
        "command": ["sleep", "9"],
        "env": {},
        "cpu_millicores": 100,
        "memory_bytes": 1 << 20,
        "pids": 4,
        "grace_ms": 1000,
        "on_disconnect": "keep",
    }
    return parse({**fields, **more})


class Driver:
    """Steps a core, answers for the journal on demand, and keeps all effects."""

    def __init__(self, memory: ev.Memory | None = None, *, durable: bool = True) -> None:
        self.core = Core(memory or ev.Memory({}, ()), 0)
        self.now_ms = 0
        self.durable = durable
        self.effects: list[ev.Effect] = []
        self.take(self.core.birth_effects())

    def take(self, effects: list[ev.Effect]) -> list[ev.Effect]:
        self.effects += effects
        taken = list(effects)
        if self.durable:
            for effect in effects:
                if isinstance(effect, ev.Journal):
                    taken += self.step(ev.Journaled(effect.sequence))
        return taken

    def step(self, event: ev.Event, after_ms: int = 0) -> list[ev.Effect]:
        self.now_ms += after_ms
        return self.take(self.core.step(event, self.now_ms * MS))

    def running(self, **more: Any) -> Card:
        card = spec(**more).card
        self.step(ev.StartAsked(CALLER, spec(**more)))
        self.step(ev.Spawned(card.key, 100, 0))
        self.step(ev.Executed(card.key))
        return card

    def end(self, card: Card, status: ev.Status, oom_kills: int = 0) -> dict[str, Any]:
        self.step(ev.MainExited(card.key, status, oom_kills))
        effects = self.step(ev.GroupEmpty(card.key))
        [announced] = [effect for effect in of(effects, ev.Announce) if effect.kind == "exited"]
        ended: dict[str, Any] = announced.record["exit"]
        return ended


def of(effects: list[ev.Effect], kind: type[Kind]) -> list[Kind]:
    return [effect for effect in effects if isinstance(effect, kind)]


def refusal(effects: list[ev.Effect]) -> str:
    [refused] = of(effects, ev.Refuse)
    return refused.code
