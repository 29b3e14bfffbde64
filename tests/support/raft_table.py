"""Consensus cores on a table, moved by hand: every message, write and tick is a line of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from raft.core import Core, CoreConfig, Recovered
from raft.effects import Effect, Persist, Send
from raft.events import Event, Persisted, Proposal, Proposed, ReadRequested, Received, Tick
from raft.messages import COMMAND, CONFIGURATION, Configuration, Entry, HardState, Message, encode_configuration

MS = 1_000_000
T = 100 * MS


def store_of(name: str) -> str:
    return f"{int(name[1:]):032x}"


def first_entry(names: Iterable[str]) -> Entry:
    voters = {name: store_of(name) for name in names}
    return Entry(1, 1, CONFIGURATION, encode_configuration(Configuration("c" * 32, 1, voters)))


def log_of(names: Iterable[str], terms: Iterable[int]) -> tuple[Entry, ...]:
    """A formed log whose entries have these terms; the first must be 1."""
    entries = [Entry(term, index, COMMAND, b"%d.%d" % (term, index)) for index, term in enumerate(terms, 1)]
    return (first_entry(names), *entries[1:]) if entries else ()


class FixedDice:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)


class Table:
    """Replicas `names`; `logs` gives each one's terms by index (default: entry 1 alone), None an empty store."""

    def __init__(
        self,
        names: Iterable[str] = ("n1", "n2", "n3"),
        *,
        logs: dict[str, list[int] | None] | None = None,
        hard: dict[str, HardState] | None = None,
        **config: Any,
    ) -> None:
        self.names = tuple(names)
        self.now = 0
        self.config = config
        self.mail: list[tuple[str, str, Message]] = []
        self.effects: dict[str, list[Effect]] = {name: [] for name in self.names}
        self.writes: dict[str, list[Persist]] = {name: [] for name in self.names}
        self.held: dict[str, list[tuple[int, Send]]] = {name: [] for name in self.names}
        self.stores = {name: store_of(name) for name in self.names}
        self.disk: dict[str, tuple[Entry, ...]] = {}
        self.hard: dict[str, HardState] = {}
        self.cores: dict[str, Core] = {}
        for name in self.names:
            terms = (logs or {}).get(name, [1])
            self.disk[name] = log_of(self.names, terms or [])
            self.hard[name] = (hard or {}).get(name, HardState(terms[-1] if terms else 0, None))
            self.start(name)
        self._calls = 0

    def __getitem__(self, name: str) -> Core:
        return self.cores[name]

    def start(self, name: str) -> None:
        """Begin, or begin again, from what the disk holds."""
        config = CoreConfig(
            id=name, store_id=self.stores[name], peers=self.names, **{"election_timeout_ns": T, **self.config}
        )
        recovered = Recovered(self.hard[name], self.disk[name])
        self.cores[name] = Core(config, recovered, FixedDice(int(name[1:])), self.now)
        self.writes[name], self.held[name] = [], []

    def wipe(self, name: str, store: str) -> None:
        """The replica's disk is lost; it begins again with an empty one, as `store`."""
        self.stores[name] = store
        self.disk[name], self.hard[name] = (), HardState(0, None)
        self.start(name)

    # -- moves ---------------------------------------------------------------------------------

    def step(self, name: str, event: Event) -> list[Effect]:
        effects = self.cores[name].step(event)
        self.effects[name] += effects
        for effect in effects:
            if isinstance(effect, Persist):
                self.writes[name].append(effect)
            elif isinstance(effect, Send):
                if effect.after_persist and self.writes[name]:
                    self.held[name].append((self.writes[name][-1].write, effect))
                else:
                    self.mail.append((name, effect.to, effect.message))
        return effects

    def tick(self, name: str, now: int | None = None) -> list[Effect]:
        """Let time come to the replica's deadline (or to `now`), for it alone."""
        self.now = max(self.now, self.cores[name].next_deadline_ns() if now is None else now)
        return self.step(name, Tick(self.now))

    def beat(self, name: str) -> list[Effect]:
        """Let a leader's heartbeat come due."""
        return self.tick(name, self.now + T // 4)

    def sync(self, *names: str) -> None:
        """Complete all writes in flight of the named (or all) replicas, and release what waited for them."""
        for name in names or self.names:
            while self.writes[name]:
                self.sync_one(name)

    def sync_one(self, name: str) -> list[Effect]:
        """Complete the oldest write in flight."""
        write = self.writes[name].pop(0)
        if write.hard_state is not None:
            self.hard[name] = write.hard_state
        if write.entries:
            self.disk[name] = self.disk[name][: write.entries[0].index - 1] + write.entries
        last = self.disk[name][-1] if self.disk[name] else Entry(0, 0, 0, b"")
        effects = self.step(name, Persisted(self.now, write.write, last.term, last.index))
        waiting, self.held[name] = self.held[name], []
        for number, send in waiting:
            if number <= write.write:
                self.mail.append((name, send.to, send.message))
            else:
                self.held[name].append((number, send))
        return effects

    def take(self, chosen: Callable[[str, str, Message], bool] = lambda *_: True) -> list[tuple[str, str, Message]]:
        """Take messages off the table without delivering them."""
        taken = [each for each in self.mail if chosen(*each)]
        self.mail = [each for each in self.mail if not chosen(*each)]
        return taken

    def receive(self, sender: str, to: str, message: Message, store: str | None = None) -> list[Effect]:
        """Deliver one message; its sender runs on `store`, by default on the one it has now."""
        return self.step(to, Received(self.now, sender, message, store or self.stores.get(sender, store_of(sender))))

    def deliver(self, chosen: Callable[[str, str, Message], bool] = lambda *_: True) -> int:
        """Deliver what is on the table now."""
        taken = self.take(chosen)
        for sender, to, message in taken:
            self.receive(sender, to, message)
        return len(taken)

    def settle(self, among: Iterable[str] | None = None) -> None:
        """Sync and deliver until nothing moves; messages from or to others are lost."""
        names = tuple(self.names if among is None else among)
        for _ in range(1000):
            self.sync(*names)
            self.mail = [each for each in self.mail if each[0] in names and each[1] in names]
            if not self.deliver():
                return
        raise AssertionError("the table does not come to rest")

    def elect(self, name: str, among: Iterable[str] | None = None) -> None:
        """Let all time-outs pass and `name` be the first to notice."""
        self.now += 2 * T
        self.tick(name)
        self.settle(among)
        assert self.cores[name].role == "leader", f"{name} was not elected: {self.cores[name].role}"

    def propose(self, name: str, *data: bytes) -> list[Effect]:
        proposals = []
        for each in data:
            self._calls += 1
            proposals.append(Proposal(self._calls, each))
        return self.step(name, Proposed(self.now, tuple(proposals)))

    def read(self, name: str, *ids: int) -> list[Effect]:
        return self.step(name, ReadRequested(self.now, ids))

    # -- looks ---------------------------------------------------------------------------------

    def terms(self, name: str) -> list[int]:
        log = self.cores[name].log
        return [log.term_at(index) for index in range(1, log.last_index + 1)]

    def seen(self, name: str, kind: type) -> list[Any]:
        """All effects of a kind so far."""
        return [effect for effect in self.effects[name] if isinstance(effect, kind)]
