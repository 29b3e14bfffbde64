"""The load as data: what clients ask of the cluster, and when.

Owns: the kinds of calls and drawing a plan of them from the seed.
Must not know: how a call is made (`clients`), or what is broken meanwhile.

A plan holds at least fifty different jobs of every kind there is: batch and service, `keep` and
`stop`, with priorities, selectors and tolerations, and one that fits nowhere for now.  Some calls
are made twice under one request id, as a caller does that got no answer.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from msgspec import Struct

from chaos.sim.swarm.profile import SPECIAL_TAINT, ZONES, Profile, stream

JOBS: Final = (50, 52)
COPIES: Final = (0, 0, 0, 0, 0, 1, 1, 1, 1, 2)
"""A job of none waits to be scaled; its update does that."""
BURSTS: Final = (2, 4)
BURST_PERCENT: Final = 95
"""Of the jobs, come with others at almost one moment: callers come in crowds, and crowds are what batching is for."""
BURST_MS: Final = 4
CROWD_PERCENT: Final = 15
"""Of the seeds, hold a crowd of large jobs."""
START_MS: Final = 1_200
CLIENT_TIMEOUT_MS: Final = 4_000


class Call(Struct, frozen=True, omit_defaults=True):
    """One call of one client.

    `kind`: submit, stop, read, cordon, uncordon, label, taint, untaint.  `target` is a job or node name.
    `replica` is where it is asked first.  `job` is the job file of a submit.
    """

    at_ms: int
    kind: str
    target: str
    request: str
    replica: str
    job: dict[str, Any] = {}
    twice: bool = False
    """Asked again under the same request id, at another replica, whatever the first answer was."""


def draw_load(profile: Profile) -> tuple[Call, ...]:
    """The plan of the profile's seed, by time."""
    dice = stream(profile.seed, "load")
    end = profile.safety_ms
    moments = _Moments(dice, end)
    calls: list[Call] = []
    for number in range(dice.randint(*JOBS)):
        calls += _life(dice, profile, f"j{number}", moments)
    calls += _operations(dice, profile, end)
    calls += _crowd(stream(profile.seed, "crowd"), profile, end)
    return tuple(sorted(calls, key=lambda call: (call.at_ms, call.request)))


class _Moments:
    """When calls are made: most of them in bursts."""

    def __init__(self, dice: Random, end_ms: int) -> None:
        self._dice = dice
        self._end_ms = end_ms
        self._bursts = [dice.randint(START_MS, end_ms - 1_000) for _ in range(dice.randint(*BURSTS))]

    def first(self) -> int:
        """Of a job's first call."""
        if self._dice.randrange(100) < BURST_PERCENT:
            return self._dice.choice(self._bursts) + self._dice.randrange(BURST_MS)
        return self._dice.randint(START_MS, self._end_ms - 1_000)

    def later(self, than_ms: int) -> int:
        """Of a further call about it."""
        bursts = [at for at in self._bursts if at > than_ms]
        if bursts and self._dice.randrange(100) < BURST_PERCENT:
            return self._dice.choice(bursts) + self._dice.randrange(BURST_MS)
        return self._dice.randint(than_ms, self._end_ms)


def job_names(calls: tuple[Call, ...]) -> tuple[str, ...]:
    """Every job of a plan, in order of its first call."""
    return tuple(dict.fromkeys(call.target for call in calls if call.kind == "submit"))


def _crowd(dice: Random, profile: Profile, end_ms: int) -> list[Call]:
    """Now and then more large jobs at once than there is room for: several replicas decide about the same last room."""
    calls: list[Call] = []
    for crowd in range(1 if dice.randrange(100) < CROWD_PERCENT else 0):
        at_ms = dice.randint(START_MS, end_ms - 4_000)
        for number in range(dice.randint(6, 12)):
            name = f"c{crowd}-{number}"
            job = _job(dice, name, batch=dice.random() < 0.4)
            job["resources"]["requests"]["cpu"] = dice.choice(("900m", "1300m", "1900m"))
            job["replicas"] = dice.choice((1, 2))
            calls.append(_call(dice, profile, at_ms + dice.randrange(40), "submit", name, 1, job=job))
            if job["kind"] == "service":
                calls.append(_call(dice, profile, at_ms + dice.randint(500, 4_000), "stop", name, 2))
    return calls


def _life(dice: Random, profile: Profile, name: str, moments: _Moments) -> list[Call]:
    """The calls about one job: submitted, perhaps read, replaced, stopped."""
    at_ms = moments.first()
    batch = dice.random() < 0.55
    job = _job(dice, name, batch)
    calls = [_call(dice, profile, at_ms, "submit", name, 1, job=job, twice=dice.random() < 0.1)]
    if dice.random() < 0.2:
        calls.append(_call(dice, profile, moments.later(at_ms), "read", name, 2))
    if not batch and dice.random() < 0.2:
        changed = {**job, "env": {"VERSION": "2"}, "replicas": max(1, job["replicas"])}
        calls.append(_call(dice, profile, moments.later(at_ms), "submit", name, 3, job=changed))
    if not batch and dice.random() < 0.4:
        calls.append(_call(dice, profile, moments.later(at_ms), "stop", name, 4, twice=dice.random() < 0.1))
    return calls


def _call(dice: Random, profile: Profile, at_ms: int, kind: str, target: str, number: int, **more: Any) -> Call:
    return Call(at_ms, kind, target, f"{target}.{number}", dice.choice(profile.replica_names), **more)


def _job(dice: Random, name: str, batch: bool) -> dict[str, Any]:
    """A job file.  The command's argument tells the simulated runtime how long it runs, and its end."""
    job: dict[str, Any] = {
        "name": name,
        "kind": "batch" if batch else "service",
        "replicas": dice.choice(COPIES),
        "command": _command(dice, batch),
        "resources": {
            "requests": {"cpu": dice.choice(("50m", "100m", "250m")), "memory": dice.choice(("16Mi", "64Mi"))}
        },
        "on_disconnect": dice.choice(("keep", "stop", "stop")),
        "terminationGracePeriodSeconds": dice.choice((0, 1, 2)),
        "priority": dice.choice((0, 0, 0, 10, -5)),
    }
    if dice.random() < 0.15:
        job["nodeSelector"] = {"zone": dice.choice(ZONES)}
    if dice.random() < 0.2:
        key, _, rest = SPECIAL_TAINT.partition("=")
        value, _, effect = rest.partition(":")
        job["tolerations"] = [{"key": key, "operator": "Equal", "value": value, "effect": effect}]
    if batch:
        job["backoffLimit"] = dice.choice((0, 2))
    return job


def _command(dice: Random, batch: bool) -> list[str]:
    """``/bin/sim-run MS CODE``: runs so long, then exits so; a service runs until it is told to end."""
    if batch:
        return ["/bin/sim-run", str(dice.choice((50, 200, 1_000, 3_000))), dice.choice(("0", "0", "0", "0", "1"))]
    return ["/bin/sim-run", "forever", "0"]


def _operations(dice: Random, profile: Profile, end_ms: int) -> list[Call]:
    """What an operator does to nodes; the first node stays plain, so that work always has a place."""
    calls: list[Call] = []
    for number in range(dice.randint(0, 3)):
        node = dice.choice(profile.agent_names[1:])
        at_ms = dice.randint(3_000, end_ms - 2_000)
        until_ms = min(end_ms, at_ms + dice.randint(500, 6_000))
        done, undone = dice.choice((("cordon", "uncordon"), ("taint", "untaint"), ("label", "label")))
        replica = dice.choice(profile.replica_names)
        calls.append(Call(at_ms, done, node, f"op{number}.1", replica))
        calls.append(Call(until_ms, undone, node, f"op{number}.2", replica))
    return calls
