"""Whether one copy, asked one call after the other, could have given all these answers (linearizability).

Owns: the search.  Must not know: what calls mean, or where histories come from.

Herlihy and Wing's definition; the search is Wing and Gong's with Lowe's memory of what was tried ("Testing for
linearizability", 2017): choose among the calls that may come next, step the model, go back where it refuses.  Keys
are independent of each other, so each is searched alone.  What was chosen is kept as a *window*: all calls before a
position, and a bit mask from there on, so that a configuration is small however long the history is.

A budget of steps instead of a clock: the same history gets the same verdict on every machine, and a search that is
given up says unknown.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from msgspec import Struct

from chaos.history.models import Model
from chaos.history.operations import Operation

STEPS_MAX = 2_000_000


class Outcome(Struct, frozen=True):
    """The verdict over one key, or over all of them.

    `ok`: None = the budget ran out.  `stuck`: the calls that no order can serve, of which the first that
    returned is first; `after`: what was ordered before them in the longest attempt, its end.
    """

    ok: bool | None
    key: Hashable
    operations: int
    steps: int
    stuck: tuple[Operation, ...] = ()
    after: tuple[Operation, ...] = ()


def check(history: Iterable[Operation], model: Model, steps_max: int = STEPS_MAX) -> tuple[Outcome, ...]:
    """One outcome a key, in order of the keys' first calls; the budget is for all of them together."""
    by_key: dict[Hashable, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    outcomes, left = [], steps_max
    for operations in by_key.values():
        outcome = check_key(operations, model, left)
        outcomes.append(outcome)
        left = max(0, left - outcome.steps)
    return tuple(outcomes)


def check_key(operations: Sequence[Operation], model: Model, steps_max: int = STEPS_MAX) -> Outcome:
    """The verdict over the calls on one key."""
    return _Search(operations, model).run(steps_max)


class _Search:
    """The calls of one key, and the way through them.

    Answered calls, by the moment of the call, are numbered from 0: `base` of them are ordered, and those whose bit of
    `mask` (from `base` on) is set.  Unanswered ones are numbered on their own, and never have to be ordered.
    """

    def __init__(self, operations: Sequence[Operation], model: Model) -> None:
        self._all = operations
        self._model = model
        self._sure = sorted([o for o in operations if o.definite], key=lambda o: (o.called, o.returned))
        self._open = sorted([o for o in operations if not o.definite], key=lambda o: o.called)
        self._rank = [(model.rank(o.input, o.output), o.returned) for o in self._sure]
        self._reads = [model.only_reads(o.input, o.output) for o in self._sure]
        self._called = [o.called for o in self._sure]
        self._returned = [o.returned for o in self._sure]
        self._opened = [o.called for o in self._open]

    def run(self, steps_max: int) -> Outcome:
        """Depth first: the answered calls before the unanswered, by rank and then by return."""
        count, step = len(self._sure), self._model.step
        seen: set[tuple[int, int, int, Hashable]] = set()
        base, mask, used, state = 0, 0, 0, self._model.first()
        choices = self._choices(base, mask, used)
        stack: list[tuple[int, int, int, Hashable, list[int]]] = []
        path: list[int] = []
        best, stuck, steps = -1, (0, 0), 0
        after: tuple[int, ...] = ()
        while base < count:
            if steps >= steps_max:
                return Outcome(None, self._key, len(self._all), steps)
            if not choices:
                if not stack:
                    return self._refused(steps, *stuck, after)
                base, mask, used, state, choices = stack.pop()
                path.pop()
                continue
            number = choices[-1]
            operation = self._sure[number] if number >= 0 else self._open[~number]
            steps += 1
            new = self._after(base, mask, used, number)
            fresh = [each for each in step(state, operation.input, operation.output) if (*new, each) not in seen]
            if not fresh:
                choices.pop()
                continue
            seen.add((*new, fresh[0]))
            if number >= 0 and self._reads[number]:
                choices.clear()  # it may come now and never changes anything: any order that has it later is no better
            stack.append((base, mask, used, state, choices))
            path.append(number)
            (base, mask, used), state = new, fresh[0]
            choices = self._choices(base, mask, used)
            if base + mask.bit_count() > best:
                best, stuck, after = base + mask.bit_count(), (base, mask), tuple(path[-6:])
        return Outcome(True, self._key, len(self._all), steps)

    @property
    def _key(self) -> Hashable:
        return self._all[0].key if self._all else None

    def _after(self, base: int, mask: int, used: int, number: int) -> tuple[int, int, int]:
        if number < 0:
            return base, mask, used | 1 << ~number
        mask |= 1 << (number - base)
        while mask & 1:
            mask >>= 1
            base += 1
        return base, mask, used

    def _choices(self, base: int, mask: int, used: int) -> list[int]:
        """Who may come next, the best last: nobody who was called after another, not ordered yet, had returned."""
        called, returned = self._called, self._returned
        deadline, found, at = float("inf"), [], base
        while at < len(called) and called[at] <= deadline:
            if not mask >> (at - base) & 1:
                found.append(at)
                if returned[at] < deadline:
                    deadline = returned[at]
            at += 1
        found = [number for number in found if called[number] <= deadline]
        found.sort(key=self._rank.__getitem__, reverse=True)
        still_open = []
        for number, moment in enumerate(self._opened):
            if moment > deadline:
                break
            if not used >> number & 1:
                still_open.append(~number)
        return still_open + found

    def _refused(self, steps: int, base: int, mask: int, after: tuple[int, ...]) -> Outcome:
        waiting = [number for number in self._choices(base, mask, 0) if number >= 0]
        stuck = tuple(self._sure[number] for number in reversed(waiting))
        ordered = tuple(self._sure[number] if number >= 0 else self._open[~number] for number in after)
        return Outcome(False, self._key, len(self._all), steps, stuck, ordered)
