"""The sandboxer's production code over the simulated kernel: what is claimed against what really ran."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from sim_nodes import WEB, Bed, assignment, sim_run, until_exit

from agents.sandbox_client import SandboxClient, SandboxerGone, SandboxerRefused
from agents.sandboxer import adoption
from chaos.sim.processes import Traits
from chaos.sim.syscalls import STEPS
from chaos.sim.world import World


def test_a_workload_runs_ends_and_is_reported_as_the_kernel_saw_it() -> None:
    async def work(client: SandboxClient):
        started = await client.start(assignment(*sim_run("500", 3)))
        return started, await until_exit(client, WEB, 10)

    with World(1) as world:
        bed = Bed(world)
        started, ended = bed.drive(work)
        assert not world.loop.failures
        assert started.state == "running"
        assert (ended.exit.code, ended.exit.reason, ended.exit.status_known) == (3, "exited", True)
        [began], [truth], [empty] = bed.runs("began"), bed.runs("ended"), bed.runs("emptied")
        assert began["pid"] == truth["pid"] == empty["pid"] == started.pid
        assert (truth["code"], truth["why"]) == (3, "exit")
        assert bed.node.running() == []
        assert bed.node.kernel.groups.names() == [], "the group goes once the exit is durable"


@pytest.mark.parametrize(
    ("words", "code", "signal"), [(("obeys",), 0, None), (("dies",), None, 15), (("ignores",), None, 9)]
)
def test_a_stop_ends_each_kind_of_program_within_its_grace(words, code, signal) -> None:
    async def work(client: SandboxClient):
        await client.start(assignment(*sim_run("forever", 0, *words)))
        await client.stop(WEB, 10, 1.0)
        return await until_exit(client, WEB, 10)

    with World(2) as world:
        bed = Bed(world)
        ended = bed.drive(work)
        assert (ended.exit.code, ended.exit.signal, ended.exit.reason) == (code, signal, "stopped")


def test_what_a_program_forked_is_gone_before_its_exit_is_told() -> None:
    async def work(client: SandboxClient):
        await client.start(assignment(*sim_run("200", 0, "forks")))
        return await until_exit(client, WEB, 10)

    with World(3) as world:
        bed = Bed(world)
        bed.drive(work)
        order = [fields["do"] for fields in bed.in_order("run") if fields["do"] in ("ended", "emptied", "exit")]
        assert order == ["ended", "emptied", "exit"]


@pytest.mark.parametrize("oom_groups", [False, True])
def test_memory_running_out_is_told_as_such(oom_groups) -> None:
    async def work(client: SandboxClient):
        await client.start(assignment("/bin/sim-run", "forever", "0", "oom", "forks", "quiet"))
        return await until_exit(client, WEB, 10)

    with World(4) as world:
        bed = Bed(world, traits=Traits(oom_groups=oom_groups))
        ended = bed.drive(work)
        assert (ended.exit.reason, ended.exit.signal) == ("oom", 9)


def test_a_program_that_does_not_exist_fails_to_start() -> None:
    async def work(client: SandboxClient):
        return await client.start(assignment("/bin/sim-missing"))

    with World(5) as world:
        record = Bed(world).drive(work)
        assert (record.state, record.exit.reason) == ("exited", "start-failed")


def start_then_crash(bed: Bed, *orders, **lease) -> None:
    async def work(client: SandboxClient):
        if lease:
            await client.renew(bed.host.clock.now_ns() + lease["lease_ns"], lease["registration"])
        for order in orders:
            await client.start(order, registration=lease.get("registration", 0))

    bed.drive(work)
    bed.node.crash("sandboxer")


def test_keep_outlives_its_sandboxer_and_is_adopted_stop_dies_with_it() -> None:
    async def look(client: SandboxClient):
        return {record.allocation: record for record in await client.list()}

    with World(6) as world:
        bed = Bed(world)
        keep, stop = assignment(), assignment(allocation="default/one.0", on_disconnect="stop")
        start_then_crash(bed, keep, stop, lease_ns=10**10, registration=1)
        world.run_for(0.5)
        assert bed.node.running() == [(WEB, 10)]
        records = bed.drive(look)
        assert (records[WEB].state, records[WEB].adopted) == ("running", True)
        assert records["default/one.0"].exit.reason == "lost"
        assert not records["default/one.0"].exit.status_known


@pytest.mark.parametrize("tells_exits", [False, True])
def test_the_status_of_an_adopted_workload_is_the_kernels_or_unknown_never_invented(tells_exits) -> None:
    async def adopt(client: SandboxClient):
        return await until_exit(client, WEB, 10)

    known = 0
    for seed in range(8):
        with World(seed) as world:
            bed = Bed(world, traits=Traits(tells_exits=tells_exits))
            start_then_crash(bed, assignment(*sim_run("1000", 7)))
            ended = bed.drive(adopt)
            assert ended.exit.code in (7, None)
            assert (ended.exit.code == 7) == ended.exit.status_known
            known += ended.exit.status_known
    assert known == 8 if tells_exits else known < 8


def test_what_ended_while_nobody_looked_is_lost_even_if_a_stranger_has_its_number() -> None:
    async def look(client: SandboxClient):
        return await until_exit(client, WEB, 10)

    strangers = 0
    for seed in range(20):
        with World(seed) as world:
            bed = Bed(world)
            start_then_crash(bed, assignment(*sim_run("300", 0)))
            world.run_for(0.4)
            [truth] = bed.runs("ended")
            stat = bed.node.kernel.stat(truth["pid"])
            strangers += stat is not None and stat.name == "stranger"
            ended = bed.drive(look)
            assert (ended.exit.reason, ended.exit.status_known) == ("lost", False)
            assert bed.runs("harmed") == []
    assert strangers, "no seed gave the number to a stranger"


def test_a_supervisor_that_trusts_numbers_takes_strangers_for_workloads_and_harms_them(monkeypatch) -> None:
    def trusting(stat, ticks, in_group):
        return adoption.Verdict.GONE if stat is None else adoption.Verdict.OURS

    async def stop(client: SandboxClient):
        [record] = await client.list()
        await client.stop(WEB, 10, 0.0)
        await asyncio.sleep(1.0)
        return record

    monkeypatch.setattr(adoption, "judged", trusting)
    claimed = harmed = 0
    for seed in range(20):
        with World(seed) as world:
            bed = Bed(world)
            start_then_crash(bed, assignment(*sim_run("300", 0)))
            world.run_for(0.4)
            record = bed.drive(stop)
            claimed += record.state == "running" and bed.node.running() == []
            harmed += bool(bed.runs("harmed"))
    assert claimed
    assert harmed


@pytest.mark.parametrize("step", STEPS)
def test_a_sandboxer_killed_in_the_middle_leaves_nothing_running_unrecorded(step) -> None:
    async def start(client: SandboxClient):
        with contextlib.suppress(SandboxerGone):
            await client.start(assignment(*sim_run("2000", 0)))
            await until_exit(client, WEB, 10)

    async def look(client: SandboxClient):
        [record] = await client.list()
        with pytest.raises(SandboxerRefused, match="fenced"):
            await client.start(assignment(epoch=9))
        return record, bed.node.running(), await until_exit(client, WEB, 10)

    with World(7) as world:
        bed = Bed(world)
        bed.drive(lambda client: client.list())
        assert bed.node.crash_sandboxer_at(step)
        first = bed.node.sandboxer
        bed.drive(start)
        assert not first.process.alive
        world.run_for(0.1)
        record, running, ended = bed.drive(look)
        ran = [fields["epoch"] for fields in bed.runs("began")]
        assert (record.state in ("running", "stopping")) == bool(running)
        if step in ("group-made", "forked", "recorded"):
            assert ran == []
            assert ended.exit.reason == "start-failed" or step == "recorded"
            assert not ended.exit.status_known
        else:
            assert ran == [10]
        if step == "waited":
            assert not ended.exit.status_known, "it was reaped by one who did not live to write it down"
        if step == "let-go":
            assert running == [(WEB, 10)]
            assert ended.exit.code == 0
        assert not world.loop.failures


def test_a_journal_that_loses_power_keeps_what_was_acknowledged() -> None:
    async def start(client: SandboxClient):
        await client.start(assignment(*sim_run("100", 5)))
        await until_exit(client, WEB, 10)
        await asyncio.sleep(0.1)
        await client.start(assignment(allocation="default/two.0"))

    async def look(client: SandboxClient):
        with pytest.raises(SandboxerRefused, match="fenced"):
            await client.start(assignment(allocation="default/two.0", epoch=9))
        return {record.allocation: record.exit for record in await client.list()}

    for seed in range(10):
        with World(seed) as world:
            bed = Bed(world)
            bed.drive(start)
            boot = bed.host.boot_id
            bed.node.power_off()
            world.run_for(0.2)
            bed.node.power_on()
            assert bed.host.boot_id != boot
            exits = bed.drive(look)
            assert (exits[WEB].code, exits[WEB].status_known) == (5, True)
            assert (exits["default/two.0"].reason, exits["default/two.0"].status_known) == ("lost", False)
            assert [fields["why"] for fields in bed.runs("ended")] == ["exit", "power"]


def test_a_workload_is_fenced_at_its_deadline_and_starts_late_never() -> None:
    async def work(client: SandboxClient):
        one = assignment(*sim_run("forever", 0, "ignores"), on_disconnect="stop", grace_s=1)
        with pytest.raises(SandboxerRefused, match="lease"):
            await client.start(one, registration=1)
        now_ns = bed.host.clock.now_ns()
        await client.renew(now_ns + 2_000_000_000, 1)
        await client.start(one, registration=1)
        with pytest.raises(SandboxerRefused, match="lease"):
            await client.start(assignment(allocation="default/late.0", on_disconnect="stop"), registration=7)
        await until_exit(client, WEB, 10)
        with pytest.raises(SandboxerRefused, match="lease"):
            await client.start(assignment(allocation="default/late.0", on_disconnect="stop"), registration=1)
        return bed.host.clock.now_ns() - now_ns

    with World(8) as world:
        bed = Bed(world)
        took_ns = bed.drive(work)
        assert 3_000_000_000 <= took_ns < 3_100_000_000, "SIGTERM at the deadline, SIGKILL at deadline + grace"
        [fenced] = bed.runs("fenced")
        assert fenced["allocation"] == WEB


def test_a_start_that_takes_longer_than_the_lease_is_barred_at_exec() -> None:
    async def work(client: SandboxClient):
        now_ns = bed.host.clock.now_ns()
        await client.renew(now_ns + 1_000_000_000, 1)
        await client.start(assignment(on_disconnect="stop"), registration=1)
        return await until_exit(client, WEB, 10)

    with World(8) as world:
        bed = Bed(world)
        bed.node.kernel.fork_ns = lambda: 1_500_000_000
        ended = bed.drive(work)
        assert ended.exit.reason == "lease"
        assert bed.runs("began") == []
        assert bed.node.kernel.groups.names() == []


def test_the_deadline_outlives_the_sandboxer_but_not_the_boot() -> None:
    async def look(client: SandboxClient):
        with pytest.raises(SandboxerRefused) as refused:
            await client.start(assignment(allocation="default/two.0", on_disconnect="stop"), registration=1)
        return refused.value.reason

    async def start(client: SandboxClient):
        return await client.start(assignment(allocation="default/one.0", on_disconnect="stop"), registration=1)

    with World(9) as world:
        bed = Bed(world)
        start_then_crash(bed, assignment(), lease_ns=5 * 10**9, registration=1)
        assert bed.drive(start).state == "running", "the next sandboxer knows the lease"
        bed.node.power_off()
        bed.node.power_on()
        assert bed.drive(look) == "no-lease"


def test_a_paused_machine_ends_what_was_due_before_it_takes_a_late_renewal() -> None:
    async def begin(client: SandboxClient):
        await client.renew(bed.host.clock.now_ns() + 1_000_000_000, 1)
        await client.start(assignment(on_disconnect="stop"), registration=1)

    async def late(client: SandboxClient):
        await client.renew(bed.host.clock.now_ns() + 1_000_000_000, 1)
        return await until_exit(client, WEB, 10)

    with World(10) as world:
        bed = Bed(world)
        bed.drive(begin)
        bed.node.pause()
        world.run_for(5.0)
        assert bed.node.running() == [(WEB, 10)]
        bed.node.resume()
        ended = bed.drive(late)
        assert ended.exit.reason == "lease"


def test_the_journals_failure_refuses_starts_and_not_stops_until_it_works_again() -> None:
    async def work(client: SandboxClient):
        await client.start(assignment())
        bed.host.disks.fail("sandboxer", "write")
        with pytest.raises(SandboxerRefused, match="journal"):
            await client.start(assignment(allocation="default/two.0"))
        await client.stop(WEB, 10, 1.0)
        await until_exit(client, WEB, 10)
        await asyncio.sleep(1.0)
        return await client.start(assignment(allocation="default/two.0"))

    with World(11) as world:
        bed = Bed(world)
        assert bed.drive(work).state == "running"


def test_the_same_seed_gives_the_same_trace() -> None:
    def digest(seed: int) -> str:
        async def work(client: SandboxClient):
            for number in range(10):
                await client.start(assignment("/bin/sim-run", "700", "1", allocation=f"default/many.{number}"))
            await asyncio.sleep(3)

        with World(seed, policy="random") as world:
            bed = Bed(world)
            bed.drive(work)
            bed.node.crash("sandboxer")
            bed.drive(lambda client: client.list())
            return world.recording.digest()

    assert digest(5) == digest(5)
    assert digest(5) != digest(6)
