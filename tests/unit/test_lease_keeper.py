"""The leader's keeper of leases: what is confirmed, what is withheld, what is proposed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raft.errors import NotLeader, OutcomeUnknown, SkerryError
from scheduler import commands
from scheduler.lease_keeper import LeaseKeeper
from scheduler.leases import MS_NS, Rules
from scheduler.renewals import Grant, Renewal, Renewals, RenewCall
from tests.support.scheduler_world import World, job

RULES = Rules(lease_ns=100 * MS_NS, reconnect_ns=100 * MS_NS, drift_ppm=1000, delta_ns=10 * MS_NS)
WAIT_S = 10.0


class Trace:
    incarnation = "t"
    heartbeat_sample = 1

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, kind: str, /, **fields: Any) -> str:
        self.events.append((kind, fields))
        return ""

    def stamp_send(self) -> tuple[str, int, int]:
        return "", 0, 0

    def observe(self, lc: int, hlc: int) -> None:
        """No clocks here."""


class Quiet:
    def warning(self, event: str, **fields: Any) -> None:
        """Nobody reads."""


class Committed:
    def __init__(self, index: int, result: Any) -> None:
        self.index, self.term, self.result = index, 1, result


class Bench:
    """A keeper over a state whose log is the test; rounds and proposals wait while they are held."""

    def __init__(self, *nodes: str) -> None:
        self.world = World(*nodes)
        self.term = 1
        self.now_ns = 0
        self.rounds = asyncio.Event()
        self.rounds.set()
        self.log = asyncio.Event()
        self.log.set()
        self.rounds_begun = 0
        self.proposed: list[commands.Command] = []
        self.fails: list[SkerryError] = []
        self.changed = asyncio.Condition()
        self.trace = Trace()
        self.leader = "n1"
        self.keeper = LeaseKeeper(
            node="n1", consensus=self, term=lambda: self.term, state=self.world.state, rules=RULES, trace=self.trace,
            log=Quiet(), now_ns=lambda: self.now_ns, wall_ms=lambda: self.world.now_ms,
        )  # fmt: skip

    async def read_index(self, *, timeout_s: float) -> int:
        self.rounds_begun += 1
        await self._news()
        await self.rounds.wait()
        return self.world.state.index

    async def propose(self, data: bytes, *, timeout_s: float) -> Committed:
        self.proposed.append(commands.decode(data))
        await self._news()
        if self.fails:
            raise self.fails.pop(0)
        await self.log.wait()
        result = self.world.apply(commands.decode(data))
        self.keeper.applied(result.index)
        await self._news()
        return Committed(result.index, result)

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Everything is applied at once."""

    async def _news(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(WAIT_S), self.changed:
            await self.changed.wait_for(holds)

    async def renew(self, node: str = "a1", number: int = 1, incarnation: str = "i1") -> Grant:
        reply = await self.keeper.renew(RenewCall((Renewal(node, incarnation, number),), 1000))
        return reply.grants[0]

    def pass_ms(self, ms: int) -> None:
        self.now_ns += ms * MS_NS
        self.keeper._woken.set()  # the clock is the test's, so the keeper's own timer does not know

    @asynccontextmanager
    async def reign(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.keeper.reign())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_a_registered_node_is_granted_the_lease_of_its_registration() -> None:
    bench = Bench("a1")
    async with bench.reign():
        grant = await bench.renew()
    assert (grant.code, grant.lease_ms) == ("", 100)
    entry = bench.world.state.registration("a1")
    assert entry is not None
    assert grant.registration == entry.registered_index


async def test_who_does_not_reign_grants_nothing() -> None:
    bench = Bench("a1")
    with pytest.raises(NotLeader):
        await bench.renew()


async def test_a_round_that_ends_in_another_term_confirms_nothing() -> None:
    bench = Bench("a1")
    async with bench.reign():
        bench.rounds.clear()
        asked = asyncio.ensure_future(bench.renew())
        await bench.until(lambda: bench.rounds_begun)
        bench.term = 2
        bench.rounds.set()
        with pytest.raises(NotLeader):
            await asked


async def test_each_renewal_waits_for_a_round_begun_after_it() -> None:
    bench = Bench("a1")
    async with bench.reign():
        bench.rounds.clear()
        first, second = (asyncio.ensure_future(bench.renew(number=number)) for number in (1, 2))
        await bench.until(lambda: bench.rounds_begun == 2)
        bench.rounds.set()
        assert [(await one).code for one in (first, second)] == ["", ""]


async def test_a_silent_node_is_declared_lost_and_has_to_register() -> None:
    bench = Bench("a1")
    async with bench.reign():
        bench.pass_ms(110)
        await asyncio.sleep(0)
        assert bench.proposed == []
        bench.pass_ms(1)
        await bench.until(lambda: bench.proposed)
        assert (await bench.renew()).code == "node-lost"
        bench.world.register("a1")
        bench.keeper.applied(bench.world.state.index)
        assert (await bench.renew()).code == ""
    done = [fields["do"] for kind, fields in bench.trace.events if kind == "lease"]
    assert done == ["lost", "refused", "confirm"]


async def test_the_trace_tells_what_a_loss_waited_for_and_what_a_round_confirmed() -> None:
    bench = Bench("a1")
    async with bench.reign():
        await bench.renew(number=7)
        bench.pass_ms(111)
        await bench.until(lambda: bench.proposed)
    confirm, lost = [fields for kind, fields in bench.trace.events if kind == "lease"]
    assert (confirm["do"], confirm["nodes"], confirm["lease_ms"], confirm["waited_us"]) == (
        "confirm",
        [("a1", 7)],
        100,
        0,
    )
    told = {key: lost[key] for key in ("number", "silent_ms", "lease_ms", "grace_ms", "delta_ms", "drift_ppm")}
    assert told == {
        "number": 7, "silent_ms": 111, "lease_ms": 100, "grace_ms": 0, "delta_ms": 10, "drift_ppm": 1000,
    }  # fmt: skip
    assert confirm["term"] == lost["term"]


async def test_the_nodes_largest_stop_grace_is_waited_for_and_only_of_stop_workloads() -> None:
    bench = Bench("a1")
    for name, grace_s, on_disconnect in (("slow", 2, "stop"), ("slower", 60, "keep")):
        bench.world.submit(job(name, grace_s=grace_s, on_disconnect=on_disconnect))
    bench.world.schedule()
    async with bench.reign():
        bench.pass_ms(2_110)
        await asyncio.sleep(0)
        assert bench.proposed == []
        bench.pass_ms(5)
        await bench.until(lambda: bench.proposed)


async def test_while_a_loss_is_being_decided_renewals_and_confirmations_are_withheld() -> None:
    bench = Bench("a1")
    async with bench.reign():
        bench.rounds.clear()
        flying = asyncio.ensure_future(bench.renew(number=1))
        await bench.until(lambda: bench.rounds_begun == 1)
        bench.log.clear()
        bench.pass_ms(200)
        await bench.until(lambda: bench.proposed)
        bench.rounds.set()
        assert (await flying).code == "withheld"
        assert (await bench.renew(number=2)).code == "withheld"
        bench.log.set()
        await bench.until(lambda: bench.world.state.registration("a1").lost_index)  # type: ignore[union-attr]
        assert (await bench.renew(number=3)).code == "node-lost"


async def test_a_loss_of_unknown_outcome_is_proposed_again_until_it_is_known() -> None:
    bench = Bench("a1")
    bench.fails = [OutcomeUnknown("the reply was lost")]
    async with bench.reign():
        bench.pass_ms(200)
        await bench.until(lambda: len(bench.proposed) == 1)
        assert (await bench.renew()).code == "withheld"
        await bench.until(lambda: bench.world.state.registration("a1").lost_index)  # type: ignore[union-attr]
    assert len(bench.proposed) == 2


async def test_a_refused_loss_lets_the_node_renew_again() -> None:
    bench = Bench("a1")
    async with bench.reign():
        bench.log.clear()
        bench.pass_ms(200)
        await bench.until(lambda: bench.proposed)
        bench.world.register("a1", cpu=8000)  # registered anew before the loss is applied
        bench.log.set()
        bench.keeper.applied(bench.world.state.index)
        async with asyncio.timeout(WAIT_S):
            while (await bench.renew()).code:  # noqa: ASYNC110 - each look is a renewal
                await asyncio.sleep(0)
    assert bench.world.state.registration("a1").lost_index == 0  # type: ignore[union-attr]


async def test_another_incarnations_renewals_are_not_confirmed() -> None:
    bench = Bench("a1")
    async with bench.reign():
        assert (await bench.renew(incarnation="i2")).code == "stale-incarnation"
        assert (await bench.renew(node="a9")).code == "no-such-node"


async def test_a_storm_pauses_and_alerts_and_ends() -> None:
    nodes = [f"a{number}" for number in range(1, 6)]
    bench = Bench(*nodes)
    async with bench.reign():
        bench.pass_ms(200)
        for _ in range(3):
            await asyncio.sleep(0)
        assert bench.proposed == []
        assert "5 of 5 nodes" in bench.keeper.alert
        bench.pass_ms(60_000)
        await bench.until(lambda: bench.proposed)
        assert bench.keeper.alert == ""
    assert [fields["do"] for kind, fields in bench.trace.events if kind == "lease"].count("storm") == 1


async def test_a_new_sandboxer_is_settled_when_the_former_ones_lease_is_over() -> None:
    bench = Bench("a1")
    bench.world.submit(job(on_disconnect="stop", grace_s=0))
    bench.world.schedule()
    async with bench.reign():
        await bench.renew()
        bench.world.register("a1", incarnation="i2")
        bench.keeper.applied(bench.world.state.index)
        bench.pass_ms(60)
        assert (await bench.renew(incarnation="i2")).code == ""
        assert bench.proposed == []
        bench.pass_ms(60)
        await bench.until(lambda: bench.world.state.registration("a1").settled)  # type: ignore[union-attr]


async def test_renewals_go_to_whoever_leads_and_fail_where_nobody_does() -> None:
    bench = Bench("a1")
    leader: list[str | None] = ["n1"]
    renewals = Renewals(node="n1", leader=lambda: leader[0], peers=Unreachable(), keeper=bench.keeper)
    serving = asyncio.ensure_future(renewals.run())
    try:
        async with bench.reign():
            index, grant = await renewals.renew(Renewal("a1", "i1", 1))
            assert (index, grant.code) == (bench.world.state.index, "")
            for name in (None, "n2"):
                leader[0] = name
                with pytest.raises(NotLeader):
                    await renewals.renew(Renewal("a1", "i1", 2))
    finally:
        serving.cancel()


class Unreachable:
    async def request(self, to: str, method: str, body: bytes, *, timeout_s: float) -> bytes:
        raise NotLeader(f"{to} is not there", leader=None)
