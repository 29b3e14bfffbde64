"""What every checker is, and what it returns.

Owns: the finding's shape, the rule that nothing is claimed without having been checked, and how rules that
walk forward are fed: one pass over the events for all of them.  Must not know: any invariant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from msgspec import Struct

from chaos.trace.events import Event, Trace

REFS_MAX = 20


class Finding(Struct, frozen=True):
    """The outcome of one invariant.

    `ok`: True = held wherever checked; False = violated; None = unknown (nothing to check, or
    the evidence was lost).  `checked` counts what was compared.  `refs` name the events
    (``n/inc/i``) that prove a violation, and `detail` says it in words.
    """

    name: str
    ok: bool | None
    checked: int
    refs: tuple[str, ...] = ()
    detail: str = ""


Checker = Callable[[Trace], Finding]
Handler = Callable[[Event], None]


class Verdict:
    """Collects what a checker sees; the first violation is the one that is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checked = 0
        self.violations = 0
        self._refs: list[str] = []
        self._detail = ""
        self._unknown = 0
        self._unknown_detail = ""

    def violated(self, detail: str, *events: Event) -> None:
        """A violation, proven by these events."""
        self.violations += 1
        if not self._detail:
            self._detail = detail
        for event in events:
            if event.ref not in self._refs and len(self._refs) < REFS_MAX:
                self._refs.append(event.ref)

    def unknown(self, detail: str) -> None:
        """Something that the evidence left cannot decide."""
        self._unknown += 1
        self._unknown_detail = self._unknown_detail or detail

    def finding(self, nothing: str) -> Finding:
        """The outcome; `nothing` says what was missing when nothing could be checked."""
        if self.violations:
            more = f" (and {self.violations - 1} more)" if self.violations > 1 else ""
            return Finding(self.name, False, self.checked, tuple(self._refs), self._detail + more)
        if self.checked == 0:
            return Finding(self.name, None, 0, (), self._unknown_detail or nothing)
        detail = f"undecided: {self._unknown} ({self._unknown_detail})" if self._unknown else ""
        return Finding(self.name, True, self.checked, (), detail)


class Rule:
    """One invariant, fed event by event in the trace's order: a method ``on_KIND`` takes the events of a kind.

    A rule sees a violation at the event that completes it, so it serves a run that is still going (`Watch`).  What only
    the whole trace can tell, above all whether something is missing from it, is decided in `finish`.
    """

    name: ClassVar[str]
    nothing: ClassVar[str]
    """What was missing when nothing could be checked."""
    kinds: ClassVar[tuple[str, ...]] = ()
    types: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Of these kinds only the events of these types are taken (`send` and `recv`: most of a trace)."""

    def __init_subclass__(cls) -> None:
        cls.kinds = tuple(name[3:] for name in sorted(dir(cls)) if name.startswith("on_"))

    def __init__(self) -> None:
        self.verdict = Verdict(self.name)

    def finish(self, trace: Trace) -> None:
        """Decide what needed the whole trace."""

    def finding(self) -> Finding:
        """The outcome so far."""
        return self.verdict.finding(self.nothing)


class RuleChecker:
    """A rule as a function over a trace."""

    def __init__(self, rule: type[Rule]) -> None:
        self.rule = rule
        self.__doc__ = rule.__doc__

    def __call__(self, trace: Trace) -> Finding:
        """Walk the trace with a fresh rule."""
        (finding,) = walk(trace, [self.rule])
        return finding


class Watch:
    """Feeds rules while a run is going on.

    Attributes:
        rules: what is watched.
    """

    def __init__(self, rules: Iterable[type[Rule]]) -> None:
        self.rules = [rule() for rule in rules]
        self._handlers = _Handlers(self.rules)

    def feed(self, event: Event) -> tuple[Finding, ...]:
        """Take the next event; the rules that are violated now."""
        self._handlers.feed((event,))
        return tuple(rule.finding() for rule in self.rules if rule.verdict.violations)


def walk(trace: Trace, rules: Sequence[type[Rule]]) -> tuple[Finding, ...]:
    """One pass over the events for all rules; their findings in order."""
    made = [rule() for rule in rules]
    handlers = _Handlers(made)
    handlers.feed(trace.kind(*handlers.kinds))
    for rule in made:
        rule.finish(trace)
    return tuple(rule.finding() for rule in made)


class _Handlers:
    """Who takes which events."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._any: dict[str, list[Handler]] = {}
        self._typed: dict[str, dict[str, list[Handler]]] = {}
        for rule in rules:
            for kind in rule.kinds:
                handler = getattr(rule, f"on_{kind}")
                if kind in rule.types:
                    for type_ in rule.types[kind]:
                        self._typed.setdefault(kind, {}).setdefault(type_, []).append(handler)
                else:
                    self._any.setdefault(kind, []).append(handler)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that anybody takes."""
        return tuple(dict.fromkeys((*self._any, *self._typed)))

    def feed(self, events: Iterable[Event]) -> None:
        """Give each event to those who take it, in the order of the rules; most events are `send` and `recv`."""
        everyone, typed = self._any, self._typed
        for event in events:
            by_type = typed.get(event.k)
            if by_type is not None:
                for handler in by_type.get(event.f.get("type", ""), ()):
                    handler(event)
            for handler in everyone.get(event.k, ()):
                handler(event)
