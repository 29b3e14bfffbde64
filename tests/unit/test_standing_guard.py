"""Who is served while a state is not to be used, and what is told of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from raft.errors import StateDiverged
from raft.messages import COMMAND, Entry
from raft.status import Standing
from scheduler.api.ready import unready
from scheduler.api.table import routes
from scheduler.changelog import Changelog
from scheduler.commands import RegisterNode, SetNodeState, encode
from scheduler.fingerprint import Fingerprint
from scheduler.machine import Machine
from scheduler.model import Capacity
from scheduler.roster import Row, verdict
from scheduler.standing import Guard
from scheduler.state import State

REGISTER = encode(RegisterNode("a1", "i1", "b1", Capacity(1000, 1 << 30, 1000), "none", "", "127.0.0.1", 1))
CORDON = encode(SetNodeState("a1", "cordoned", 2))


class Sessions:
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def suspend(self, why: str) -> None:
        self.calls.append("suspend")

    def resume(self) -> None:
        self.calls.append("resume")


class Bed:
    def __init__(self, standing: Standing = Standing.OK) -> None:
        self.standing = standing
        self.sessions = Sessions()
        self.paused = 0
        self.guard = Guard(
            node="n1",
            standing=lambda: self.standing,
            sessions=self.sessions,
            pause=self._pause,
            log=structlog.get_logger(),
        )

    def _pause(self) -> None:
        self.paused += 1

    async def becomes(self, standing: Standing) -> None:
        self.standing = standing
        self.guard.changed()
        for _ in range(3):
            await asyncio.sleep(0)


async def test_agents_are_sent_away_and_placing_pauses_until_the_state_is_replaced() -> None:
    bed = Bed()
    running = asyncio.ensure_future(bed.guard.run())
    bed.guard.check()
    await bed.becomes(Standing.DIVERGED)
    with pytest.raises(StateDiverged) as caught:
        bed.guard.check()
    assert caught.value.retryable
    assert caught.value.hint
    assert (bed.sessions.calls, bed.paused) == (["suspend"], 1)
    await bed.becomes(Standing.OK)
    bed.guard.check()
    assert (bed.sessions.calls, bed.paused) == (["suspend", "resume"], 1)
    running.cancel()


async def test_without_a_majority_reading_goes_on_and_agents_stay() -> None:
    bed = Bed()
    running = asyncio.ensure_future(bed.guard.run())
    await bed.becomes(Standing.SPLIT)
    bed.guard.check()
    assert "writes are halted" in bed.guard.alert
    assert bed.sessions.calls == []
    running.cancel()


async def test_a_replica_that_starts_with_a_state_that_was_given_up_serves_nobody() -> None:
    bed = Bed(Standing.DIVERGED)
    running = asyncio.ensure_future(bed.guard.run())
    await asyncio.sleep(0)
    assert (bed.sessions.calls, bed.paused) == (["suspend"], 1)
    running.cancel()


async def test_every_call_that_touches_the_state_is_refused_and_the_others_are_not() -> None:
    def refuse() -> None:
        raise StateDiverged("no", hint="ask another")

    services: Any = SimpleNamespace(usable=refuse, state=State(), roster=None, node="n1")
    nothing: Any = SimpleNamespace(stream=None, ls=None, render=lambda: b"")
    served = []
    for route in routes(services, nothing, nothing, nothing):
        try:
            await route.handler(None)  # type: ignore[arg-type]  who is refused looks at nothing
        except StateDiverged:
            assert StateDiverged in route.errors, f"{route.path} tells so in its description"
        except (AttributeError, TypeError):
            served.append(route.path)  # it went on to work with what is not there
        else:
            served.append(route.path)
    assert sorted(served) == ["/healthz", "/metrics", "/readyz", "/v1/status", "/v1/trace", "/v1/trace/{file}"]


def rows(*standings: Standing) -> list[Row]:
    roles = ("leader", "follower", "follower")
    return [
        Row(f"n{number}", role, 4, "n1", 10, 10, standing=standing.value)
        for number, (role, standing) in enumerate(zip(roles, standings, strict=True), 1)
    ]


def test_status_says_who_fetches_its_state_and_when_writes_are_halted() -> None:
    found = verdict(rows(Standing.OK, Standing.DIVERGED, Standing.OK))
    assert (found.healthy, found.survives) == (True, 1), "its log and vote count"
    assert "fetching its state anew: n2" in found.summary
    found = verdict(rows(Standing.SPLIT, Standing.SPLIT, Standing.SPLIT))
    assert not found.healthy
    assert "no majority agrees" in found.summary


def test_a_replica_without_a_state_to_use_is_not_ready() -> None:
    [row, _, _] = rows(Standing.OK, Standing.OK, Standing.OK)
    assert unready(row) == ""
    assert "fetched anew" in unready(replace(row, standing=Standing.DIVERGED.value))


class Seen:
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def emit(self, kind: str, /, **fields: Any) -> None:
        self.kinds.append(kind)


async def test_what_is_applied_again_to_a_replaced_state_is_not_told_again() -> None:
    seen, state = Seen(), State()
    made = Machine(state, observer=seen, changelog=Changelog(), log=structlog.get_logger())
    fingerprint = Fingerprint(state)
    made.apply([Entry(1, 1, COMMAND, REGISTER)])
    frozen = made.freeze()
    made.apply([Entry(1, 2, COMMAND, CORDON)])
    told, before = list(seen.kinds), await fingerprint.now()
    made.restore(1, 1, list(frozen.chunks()))
    assert made.changelog.forgotten_index == 2, "followers of events are told of a gap"
    [result] = made.apply([Entry(1, 2, COMMAND, CORDON)])
    assert result is not None
    assert seen.kinds == told
    assert await fingerprint.now() == before
    made.apply([Entry(1, 3, COMMAND, encode(SetNodeState("a1", "ready", 3)))])
    assert len(seen.kinds) > len(told)
    assert [index for index, _ in made.changelog.after(0, 10)] == [3]


async def test_the_digest_of_a_replaced_state_is_not_the_one_remembered_of_the_one_before() -> None:
    state, wrong = State(), State()
    fingerprint = Fingerprint(wrong)
    for each, name in ((state, "ready"), (wrong, "cordoned")):
        each.apply(1, 1, REGISTER)
        each.apply(2, 1, encode(SetNodeState("a1", name, 2)))  # type: ignore[arg-type]
    frozen = state.freeze()
    before = await fingerprint.now()
    wrong.restore(2, 1, list(frozen.chunks()))
    assert await fingerprint.now() == (2, frozen.digest()) != before
