"""The scenario file: TOML, checked strictly.

Owns: its schema, its units, and the words for what is wrong in it.  Must not know: clusters,
backends, how anything is carried out.

A fault is a lease: it ends after `for`, or at a later ``heal = "<its id>"``.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from chaos.errors import ScenarioInvalid
from chaos.scenario.selectors import check_selector
from chaos.trace.checkers import CHECKERS

FILE_BYTES_MAX = 256 << 10
STEPS_MAX = 256
DURATION_S_MAX = 3600.0

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/s")

EVENTUALLY = ("leader", "all-placed", "state-hash-equal")
SOMETIMES = ("leader-changed", "write-during-fault", "unknown-outcome", "link-cut", "process-restarted", "replaced")
BUDGET = ("unavailable_ms", "elect_ms", "acked_lost", "double_run_ms", "elections", "replaced_ms", "overlap_ms")

Id = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
FaultKind = Literal["partition", "cut", "isolate", "delay", "kill", "pause"]


class ClusterShape(Struct, frozen=True, forbid_unknown_fields=True):
    """The smallest cluster that the scenario makes sense on."""

    replicas: Annotated[int, Meta(ge=1, le=5)] = 3
    agents: Annotated[int, Meta(ge=0, le=1000)] = 0


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """Submissions by HTTP to every replica in turn, also to those cut off."""

    rate: str = "20/s"
    jobs: Annotated[int, Meta(ge=1, le=1000)] = 32
    """Different jobs; each is submitted again and again under new request ids."""
    replicas: Annotated[int, Meta(ge=0, le=100)] = 0
    command: tuple[str, ...] = ("/bin/true",)
    kind: Literal["service", "batch"] = "batch"
    on_disconnect: Literal["keep", "stop"] = "keep"
    grace: Annotated[int, Meta(ge=0, le=3600)] = 5
    """Seconds between SIGTERM and SIGKILL."""
    timeout: str = "2s"

    @property
    def per_second(self) -> float:
        """Submissions a second, all clients together."""
        found = _RATE.fullmatch(self.rate)
        assert found is not None, "checked when parsed"
        return float(found.group(1))


class Step(Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from", "for_": "for"}):
    """At `t`: a fault, or the heal of one."""

    t: str
    id: Id | None = None
    fault: FaultKind | None = None
    heal: str | None = None
    for_: str | None = None
    groups: tuple[str, ...] = ()
    bridge: str | None = None
    """Of a partition: nodes that belong to no group and hear all."""
    from_: str | None = None
    to: str | None = None
    target: str | None = None
    latency: str | None = None
    jitter: str | None = None


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold: always (checkers), eventually after the last heal, sometimes, within a budget."""

    always: tuple[str, ...] = ()
    eventually: dict[str, str] = field(default_factory=dict)
    sometimes: tuple[str, ...] = ()
    budget: dict[str, int] = field(default_factory=dict)


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario file."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    lesson: Annotated[str, Meta(max_length=500)] = ""
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    duration: str = "15s"
    cluster: ClusterShape = field(default_factory=ClusterShape)
    load: Load = field(default_factory=Load)
    at: Annotated[tuple[Step, ...], Meta(max_length=STEPS_MAX)] = ()
    expect: Expect = field(default_factory=Expect)


class Lease(Struct, frozen=True):
    """A fault with its start and end, in seconds from the start of the load."""

    id: str
    step: Step
    start_s: float
    end_s: float


def seconds(text: str, where: str) -> float:
    """A duration such as ``500ms``, ``5s``, ``2m``; raises ScenarioInvalid."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ScenarioInvalid(f"{where}: {text!r} is not a duration", hint='write it like "500ms", "5s" or "2m"')
    value = float(found.group(1)) * _SECONDS[found.group(2)]
    if value > DURATION_S_MAX:
        raise ScenarioInvalid(f"{where}: {text} is longer than {DURATION_S_MAX:g} s")
    return value


def parse_scenario(text: str, source: str) -> Scenario:
    """Read and check a scenario.

    Args:
        text: TOML.
        source: its file, for messages.

    Raises:
        ScenarioInvalid: it says where and why.
    """
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ScenarioInvalid(f"{source} is larger than {FILE_BYTES_MAX} bytes")
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioInvalid(f"{source} is not TOML: {error}", hint="see the built-in ones: skerry chaos ls") from None
    except msgspec.ValidationError as error:
        raise ScenarioInvalid(
            f"{source}: {error}", hint="docs/chaos.md shows the fields; `skerry chaos ls` names scenarios to start from"
        ) from None
    _check_load(scenario, source)
    _check_expect(scenario.expect, source)
    leases(scenario, source)
    return scenario


def _check_load(scenario: Scenario, source: str) -> None:
    if _RATE.fullmatch(scenario.load.rate) is None or not 0 < scenario.load.per_second <= 10_000:
        raise ScenarioInvalid(f'{source}: load.rate must be like "20/s", not {scenario.load.rate!r}')
    seconds(scenario.load.timeout, f"{source}: load.timeout")


def _check_expect(expect: Expect, source: str) -> None:
    for kind, names, known in (
        ("always", expect.always, tuple(CHECKERS)),
        ("eventually", tuple(expect.eventually), EVENTUALLY),
        ("sometimes", expect.sometimes, SOMETIMES),
        ("budget", tuple(expect.budget), BUDGET),
    ):
        for name in names:
            if name not in known:
                raise ScenarioInvalid(
                    f"{source}: expect.{kind} knows no {name!r}", hint=f"it knows: {', '.join(known)}"
                )
    for name, limit in expect.eventually.items():
        seconds(limit, f"{source}: expect.eventually.{name}")


def leases(scenario: Scenario, source: str = "scenario") -> list[Lease]:
    """All faults with their ends, in order of their start; raises ScenarioInvalid."""
    duration = seconds(scenario.duration, f"{source}: duration")
    starts: dict[str, tuple[float, Step]] = {}
    ends: dict[str, float] = {}
    for number, step in enumerate(scenario.at, 1):
        where = f"{source}: at[{number}]"
        at = seconds(step.t, f"{where}.t")
        if at > duration:
            raise ScenarioInvalid(f"{where}: t = {step.t} lies after the scenario's end ({scenario.duration})")
        if (step.fault is None) == (step.heal is None):
            raise ScenarioInvalid(f"{where}: give either fault or heal")
        if step.fault is not None:
            id = step.id or f"f{number}"
            if id in starts:
                raise ScenarioInvalid(f"{where}: id {id!r} is used twice")
            _check_fault(step, where)
            starts[id] = (at, step)
            if step.for_ is not None:
                ends[id] = at + seconds(step.for_, f"{where}.for")
            continue
        healed = list(starts) if step.heal == "*" else [step.heal or ""]
        for id in healed:
            if id not in starts:
                raise ScenarioInvalid(f"{where}: heal names {id!r}, and no earlier fault has that id")
            ends.setdefault(id, at)
    for id, (start, _) in starts.items():
        if id not in ends:
            raise ScenarioInvalid(
                f"{source}: fault {id!r} never ends", hint='give it for = "5s", or a later heal with its id'
            )
        if not start < ends[id] <= duration:
            raise ScenarioInvalid(f"{source}: fault {id!r} must end after it starts and before the scenario ends")
    found = [Lease(id, step, start, ends[id]) for id, (start, step) in starts.items()]
    return sorted(found, key=lambda lease: lease.start_s)


_NEEDS: dict[str, tuple[str, ...]] = {
    "partition": ("groups",),
    "cut": ("from_", "to"),
    "isolate": ("target",),
    "delay": ("from_", "to", "latency"),
    "kill": ("target",),
    "pause": ("target",),
}


_MAY_HAVE = {"delay": ("jitter",), "partition": ("bridge",)}


def _check_fault(step: Step, where: str) -> None:
    needed = _NEEDS[step.fault or ""]
    allowed = (*needed, *_MAY_HAVE.get(step.fault or "", ()))
    for name in ("groups", "bridge", "from_", "to", "target", "latency", "jitter"):
        value, shown = getattr(step, name), name.rstrip("_")
        if name in needed and not value:
            raise ScenarioInvalid(f"{where}: fault {step.fault} needs {shown}")
        if name not in allowed and value:
            raise ScenarioInvalid(f"{where}: fault {step.fault} has no {shown}")
    if step.fault == "partition" and len(step.groups) < 2:
        raise ScenarioInvalid(f"{where}: a partition needs at least two groups")
    for name, value in (("latency", step.latency), ("jitter", step.jitter)):
        if value is not None:
            seconds(value, f"{where}.{name}")
    for selector in (*step.groups, step.bridge, step.from_, step.to, step.target):
        if selector is not None:
            check_selector(selector, where)
