"""Random histories: those that one copy could have given, those spoiled, and a judge that tries every order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import Any

from chaos.history.models import Job, Lock, Model, Register
from chaos.history.operations import NEVER, UNKNOWN, Operation

MODELS: dict[str, Model] = {"register": Register(0), "lock": Lock(), "job": Job()}


def by_trying_all(operations: Sequence[Operation], model: Model) -> bool:
    """Every order of every choice of unanswered calls; for a handful of calls."""
    sure = [o for o in operations if o.definite]
    maybe = [o for o in operations if not o.definite]
    for chosen in range(1 << len(maybe)):
        picked = sure + [o for number, o in enumerate(maybe) if chosen >> number & 1]
        if any(_in_time(order) and _serves(order, model) for order in permutations(picked)):
            return True
    return False


def _in_time(order: Sequence[Operation]) -> bool:
    return all(not later.returned < earlier.called for at, earlier in enumerate(order) for later in order[at + 1 :])


def _serves(order: Sequence[Operation], model: Model) -> bool:
    states = {model.first()}
    for operation in order:
        states = {after for state in states for after in model.step(state, operation.input, operation.output)}
    return bool(states)


def made_by_one_copy(
    dice: Random, kind: str, count: int, clients: int, *, keys: int = 1, unanswered: float = 0.0, values: int = 7
) -> list[Operation]:
    """Clients that ask one copy: each call takes effect at a moment between its call and its return."""
    moments = []
    free = [0.0] * clients
    for number in range(count):
        client = min(range(clients), key=free.__getitem__)
        called = free[client] + dice.expovariate(1.0)
        effect = called + dice.expovariate(1.0)
        returned = effect + dice.expovariate(1.0)
        free[client] = returned
        moments.append((effect, number, client, called, returned, dice.randrange(keys)))
    copies = {key: _Copy(kind, dice, values) for key in range(keys)}
    found = []
    for effect, number, client, called, returned, key in sorted(moments):
        call, output = copies[key].ask(number, client, effect)
        if dice.random() < unanswered:
            done = dice.random() < 0.5
            if not done:
                copies[key].undo()
            returned, output = NEVER, UNKNOWN
        found.append(Operation(key, called, returned, call, output))
    dice.shuffle(found)
    return found


class _Copy:
    """One copy of a thing, written without the models."""

    def __init__(self, kind: str, dice: Random, values: int) -> None:
        self._kind, self._dice, self._values = kind, dice, values
        self._value: Any = 0
        self._holder: int | None = None
        self._token = 0
        self._version = 0
        self._before: tuple[Any, ...] = ()

    def ask(self, number: int, client: int, moment: float) -> tuple[Any, Any]:
        self._before = (self._value, self._holder, self._token, self._version)
        ask = {"register": self._register, "lock": self._lock, "job": self._job}[self._kind]
        return ask(number, client, moment)

    def undo(self) -> None:
        self._value, self._holder, self._token, self._version = self._before

    def _register(self, number: int, client: int, moment: float) -> tuple[Any, Any]:
        which = self._dice.randrange(3)
        if which == 0:
            return ("read",), self._value
        if which == 1:
            self._value = number % self._values
            return ("write", self._value), None
        expected = self._dice.choice((self._value, (number + 1) % self._values))
        done = expected == self._value
        call = ("cas", expected, number % self._values)
        self._value = number % self._values if done else self._value
        return call, done

    def _lock(self, number: int, client: int, moment: float) -> tuple[Any, Any]:
        if self._dice.random() < 0.5:
            if self._holder is not None:
                return ("acquire", client), False
            self._holder, self._token = client, self._token + self._dice.randint(1, 3)
            return ("acquire", client), self._token
        done = self._holder == client
        call = ("release", client, self._token if done else 0)
        self._holder = None if done else self._holder
        return call, done

    def _job(self, number: int, client: int, moment: float) -> tuple[Any, Any]:
        self._token += self._dice.randint(1, 3)
        which = self._dice.randrange(3)
        self._version += which == 0
        return ("submit", "stop", "read")[which], (self._version, self._token)


def spoiled(dice: Random, kind: str, history: list[Operation]) -> list[Operation]:
    """The same with one answer changed, or two calls' answers exchanged; it may still be an honest history."""
    answered = [number for number, operation in enumerate(history) if operation.definite]
    if not answered:
        return history
    number = dice.choice(answered)
    old = history[number]
    output = old.output
    if kind == "register":
        output = (not output) if isinstance(output, bool) else (None if output is None else (output + 1) % 7)
    elif kind == "lock":
        output = dice.choice((True, False)) if old.input[0] == "release" else dice.choice((False, 1, 2, 3, 4))
    else:
        output = (output[0] + dice.choice((-1, 0, 1)), max(1, output[1] + dice.randint(-3, 3)))
    changed = list(history)
    changed[number] = Operation(old.key, old.called, old.returned, old.input, output)
    return changed
