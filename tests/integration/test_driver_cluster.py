"""Three drivers on one loop agree, say honestly what happened, and survive what disks and links do."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from raft.effects import Role, RoleChanged
from raft.errors import (
    DiskFull,
    NoQuorum,
    NoSuccessor,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    SkerryError,
    StoreError,
)
from raft.messages import Append, AppendReply
from tests.support.driver_cluster import DriverCluster

T_S = 0.15


async def test_proposals_are_applied_everywhere_in_one_order() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        data = [b"%d" % number for number in range(300)]
        outcomes = await asyncio.gather(*(leader.driver.propose(one, timeout_s=5) for one in data))
        assert [outcome.result for outcome in outcomes] == data
        assert [outcome.index for outcome in outcomes] == list(range(outcomes[0].index, outcomes[0].index + 300))
        last = outcomes[-1].index
        for replica in cluster.replicas.values():
            await replica.driver.wait_applied(last, timeout_s=5)
            assert replica.machine.commands == data


async def test_callers_of_one_iteration_share_a_frame() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        before = leader.store.frames
        await asyncio.gather(*(leader.driver.propose(b"x" * 100, timeout_s=5) for _ in range(400)))
        assert leader.store.frames - before <= 3


async def test_a_follower_names_the_leader() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        follower = cluster.followers(leader)[0]
        await cluster.until(lambda: follower.driver.leader == leader.name, "the follower to hear its leader")
        for call in (follower.driver.propose(b"x", timeout_s=1), follower.driver.read_index(timeout_s=1)):
            with pytest.raises(NotLeader) as caught:
                await call
            assert caught.value.details["leader"] == leader.name
            assert caught.value.outcome == "not-done"


async def test_a_confirmed_read_sees_what_was_acknowledged() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        outcome = await leader.driver.propose(b"x", timeout_s=5)
        indexes = await asyncio.gather(*(leader.driver.read_index(timeout_s=5) for _ in range(50)))
        assert min(indexes) >= outcome.index
        assert leader.driver.applied_index >= max(indexes)


async def test_a_leader_cut_off_never_answers_success() -> None:
    async with DriverCluster() as cluster:
        old = await cluster.leader()
        cluster.isolate(old.name)
        lost = asyncio.ensure_future(old.driver.propose(b"lost", timeout_s=10))
        with pytest.raises((OutcomeUnknown, NotLeader)):
            await old.driver.propose(b"late", timeout_s=0.05)
        with pytest.raises((NoQuorum, NotLeader)):
            await old.driver.read_index(timeout_s=0.05)
        new = await cluster.leader(among=[name for name in cluster.names if name != old.name])
        await new.driver.propose(b"kept", timeout_s=5)
        assert not lost.done(), "its fate is open while nothing else was committed in its place here"
        cluster.heal()
        with pytest.raises(ProposalDropped):
            await lost
        assert old.machine.commands == [b"kept"]


async def test_a_deadline_is_kept_and_the_outcome_is_unknown() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        for follower in cluster.followers(leader):
            follower.disk.gate.clear()
        started = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown) as caught:
            await leader.driver.propose(b"x", timeout_s=0.05)
        assert 0.05 <= asyncio.get_running_loop().time() - started < 2
        assert caught.value.outcome == "unknown"
        with pytest.raises(NoQuorum):
            await leader.driver.wait_applied(1 << 40, timeout_s=0.01)


async def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        followers = cluster.followers(leader)
        await cluster.until(lambda: all(one.driver.core.leader == leader.name for one in followers), "followers")
        for follower in followers:
            follower.disk.gate.clear()
            follower.sent.clear()
        waiting = asyncio.ensure_future(leader.driver.propose(b"x", timeout_s=5))
        index = leader.driver.core.last_index + 1
        await cluster.until(lambda: all(one.driver.core.last_index >= index for one in followers), "arrival")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        for follower in followers:
            acks = [m for _, m in follower.sent if isinstance(m, AppendReply) and m.match_index >= index]
            assert not acks, "an acknowledgement left before the sync returned"
            follower.disk.gate.set()
        assert (await waiting).index == index


async def test_writes_that_pile_up_become_one_frame() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        follower = cluster.followers(leader)[0]
        follower.disk.gate.clear()
        before, steps = follower.store.frames, follower.driver.counters.steps
        last = 0
        for number in range(7):  # each of its own iteration and its own Append; a window takes eight
            last = (await leader.driver.propose(b"%d" % number, timeout_s=5)).index
        await cluster.until(lambda: follower.driver.core.last_index >= last, "the entries in memory")
        assert follower.driver.counters.steps - steps >= 7, "the loop goes on while the disk hangs"
        follower.disk.gate.set()
        await cluster.until(lambda: follower.driver.core.durable_index >= last, "durability")
        assert follower.store.frames - before <= 2


async def test_a_leader_whose_disk_hangs_makes_way_and_comes_back() -> None:
    async with DriverCluster() as cluster:
        old = await cluster.leader()
        await cluster.until(lambda: not old.store.needs_spare, "a spare segment")
        old.disk.gate.clear()
        kept = await old.driver.propose(b"kept by the others", timeout_s=5)
        new = await cluster.leader(among=[name for name in cluster.names if name != old.name])
        assert old.driver.core.role is not Role.LEADER
        later = await new.driver.propose(b"later", timeout_s=5)
        old.disk.gate.set()
        await old.driver.wait_applied(later.index, timeout_s=5)
        assert new.machine.commands == old.machine.commands == [b"kept by the others", b"later"]
        assert kept.index < later.index
        assert [event for event in old.observer.of("disk") if event["us"] >= 20_000], "a slow write is told"


async def test_a_start_tells_the_trace_what_the_store_held() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        done = await leader.driver.propose(b"one", timeout_s=5)
        term, voted = leader.driver.core.term, leader.driver.core.voted_for
        await cluster.lose_power(leader.name)
        back = cluster.start(leader.name)
        await cluster.until(lambda: len(back.observer.events) > 2, "what was found is told")
        first, second, third = back.observer.events[:3]
        assert first[0] == "store"
        held = {"id": back.store.store_id, "term": term, "candidate": voted, "index": done.index}
        assert first[1] == held | {"election_ms": back.driver.core.config.election_timeout_ns // 1_000_000}
        assert (second[0], second[1]["recovered"]) == ("append", True)
        assert (third[0], third[1]["index"]) == ("note", 1)
        assert set(third[1]["voters"]) == set(cluster.names)
        assert third[1]["learners"] == third[1]["outgoing"] == {}


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_a_failed_write_stops_the_replica(operation: str) -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        await cluster.until(lambda: not leader.store.needs_spare, "a spare segment")
        leader.disk.disk.fail(operation)  # type: ignore[arg-type]
        with contextlib.suppress(OutcomeUnknown):  # the followers may commit it before the failure is known
            await leader.driver.propose(b"x", timeout_s=5)
        with pytest.raises(StoreError, match="could not be written"):
            await leader.running
        with pytest.raises(NotLeader, match="not running"):
            await leader.driver.propose(b"y", timeout_s=1)
        assert [event["err"] for event in leader.observer.of("disk") if "err" in event]
        cluster.replicas.pop(leader.name)
        new = await cluster.leader()
        assert new is not leader


async def test_a_command_that_cannot_be_applied_ends_the_replica() -> None:
    async with DriverCluster("n1") as cluster:
        leader = await cluster.leader()
        leader.machine.fail_on = b"bad"
        with pytest.raises(OutcomeUnknown):
            await leader.driver.propose(b"bad", timeout_s=5)
        with pytest.raises(ValueError, match="cannot apply"):
            await leader.running
        cluster.replicas.clear()


async def test_a_single_voter_commits_alone() -> None:
    async with DriverCluster("n1") as cluster:
        leader = await cluster.leader()
        outcome = await leader.driver.propose(b"x", timeout_s=5)
        assert await leader.driver.read_index(timeout_s=5) >= outcome.index
        assert leader.driver.status().voters == ("n1",)


async def test_a_restart_finds_everything() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        data = [b"%d" % number for number in range(50)]
        for one in data:
            await leader.driver.propose(one, timeout_s=5)
        cluster_id = leader.driver.status().cluster_id
        for name in cluster.names:
            await cluster.lose_power(name)
        for name in cluster.names:
            cluster.start(name)
        again = await cluster.leader()
        await again.driver.read_index(timeout_s=5)
        assert again.machine.commands == data
        assert again.driver.status().cluster_id == cluster_id
        recovered = again.observer.of("append")[0]
        assert (recovered["recovered"], recovered["first"]) == (True, 1)


async def test_power_cuts_under_load_lose_nothing_acknowledged() -> None:
    async with DriverCluster() as cluster:
        acknowledged: dict[int, bytes] = {}
        stop = asyncio.Event()

        async def client(name: int) -> None:
            number = 0
            while not stop.is_set():
                leader, number = cluster.leading(), number + 1
                data = b"%d/%d" % (name, number)
                if leader is None:
                    await asyncio.sleep(0.005)
                    continue
                try:
                    acknowledged[(await leader.driver.propose(data, timeout_s=1)).index] = data
                except SkerryError:
                    await asyncio.sleep(0.005)

        clients = [asyncio.ensure_future(client(name)) for name in range(8)]
        for round_ in range(6):
            goal = len(acknowledged) + 100
            await cluster.until(lambda goal=goal: len(acknowledged) >= goal, "load")  # type: ignore[misc]
            victims = cluster.names if round_ % 2 else [(await cluster.leader()).name]
            for name in victims:
                await cluster.lose_power(name)
            for name in victims:
                cluster.start(name)
        stop.set()
        await asyncio.gather(*clients)
        leader = await cluster.leader()
        index = await leader.driver.read_index(timeout_s=5)
        for replica in cluster.replicas.values():
            await replica.driver.wait_applied(index, timeout_s=5)
            for at, data in acknowledged.items():
                assert replica.machine.entries[at - 1].data == data


async def test_a_full_disk_refuses_proposals_and_keeps_voting() -> None:
    async with DriverCluster(capacity_bytes=300_000) as cluster:
        leader = await cluster.leader()
        await cluster.until(lambda: all(one.store.full for one in cluster.replicas.values()), "full disks")
        with pytest.raises(DiskFull) as caught:
            await asyncio.gather(*(leader.driver.propose(bytes(10_000), timeout_s=5) for _ in range(100)))
        assert caught.value.hint
        assert leader.driver.status().disk_full
        cluster.isolate(leader.name)
        new = await cluster.leader(among=[name for name in cluster.names if name != leader.name])
        cluster.heal()
        await cluster.until(lambda: leader.driver.leader == new.name, "the old leader to follow")
        for disk in cluster.disks.values():
            disk.disk.capacity_bytes = None
        await cluster.until(lambda: not any(one.store.full for one in cluster.replicas.values()), "space")
        await new.driver.propose(bytes(10_000), timeout_s=5)


async def test_a_follower_with_a_full_disk_stays_and_catches_up_later() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        poor = cluster.followers(leader)[0]
        await cluster.stop(poor.name)
        used = sum(poor.disk.open(name).size() for name in poor.disk.names())
        for name in poor.disk.names():
            if name.endswith("2.seg"):
                poor.disk.remove(name)
                used -= 1 << 18
        poor.disk.disk.capacity_bytes = used
        poor = cluster.start(poor.name)
        await cluster.until(lambda: poor.store.full, "a full disk")
        for _ in range(40):
            outcome = await leader.driver.propose(bytes(10_000), timeout_s=5)
        assert poor.driver.core.last_index < outcome.index
        assert not poor.running.done()
        poor.disk.disk.capacity_bytes = None
        await poor.driver.wait_applied(outcome.index, timeout_s=15)


async def test_an_impossible_message_is_dropped_and_the_replica_goes_on() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        term = leader.driver.core.term
        peer = cluster.followers(leader)[0]
        leader.driver.receive(
            peer.name, Append(term, 0, 0, 0, 1, ()), peer.store.store_id
        )  # a second leader of this term
        await cluster.until(lambda: leader.driver.counters.received_dropped == 1, "the drop")
        assert leader.observer.of("drop")[0]["fr"] == peer.name
        await leader.driver.propose(b"x", timeout_s=5)


async def test_stopping_answers_everybody_and_releases_the_store() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        for follower in cluster.followers(leader):
            follower.disk.gate.clear()
        goal = leader.driver.core.last_index + 3
        waiting = [asyncio.ensure_future(leader.driver.propose(b"x", timeout_s=60)) for _ in range(3)]
        await cluster.until(lambda: leader.driver.core.last_index >= goal, "the proposals in the log")
        await cluster.stop(leader.name)
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, OutcomeUnknown)
        cluster.start(leader.name)  # the directory is free again


async def test_what_happened_is_told_in_the_words_of_the_trace() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        roles: list[RoleChanged] = []
        leader.driver.on_role.append(roles.append)
        outcome = await leader.driver.propose(b"x", timeout_s=5)
        await cluster.until(lambda: leader.driver.core.durable_index >= outcome.index, "own disk")
        kinds = {kind for kind, _ in leader.observer.events}
        assert {"role", "vote", "append", "commit", "apply"} <= kinds
        hashes = {event["ph"] for kind in ("append", "commit", "apply") for event in leader.observer.of(kind)[-1:]}
        assert len(hashes) == 1, "one prefix, one hash"
        assert len(hashes.pop()) == 16
        commits = leader.observer.of("commit")
        assert [event["first"] for event in commits[1:]] == [event["index"] + 1 for event in commits[:-1]]
        assert commits[-1]["last_term"] == outcome.term
        cluster.isolate(leader.name)
        await cluster.until(lambda: bool(roles), "the leader to step down")
        assert roles[0].why


async def test_a_leader_hands_over_while_writes_go_on_and_none_is_lost() -> None:
    async with DriverCluster() as cluster:
        old = await cluster.leader()
        term = old.driver.core.term
        writes = [asyncio.ensure_future(old.driver.propose(b"%d" % number, timeout_s=5)) for number in range(200)]
        await asyncio.sleep(0)
        successor = await old.driver.hand_over()
        assert successor != old.name
        new = cluster.replicas[successor]
        assert (new.driver.core.role, new.driver.core.term) == (Role.LEADER, term + 1)
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        done = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(error, NotLeader) and error.outcome == "not-done" for error in refused), refused
        last = (await new.driver.propose(b"after", timeout_s=5)).index
        for replica in cluster.replicas.values():
            await replica.driver.wait_applied(last, timeout_s=5)
            assert len(replica.machine.commands) == len(done) + 1


async def test_a_leader_names_its_successor() -> None:
    async with DriverCluster() as cluster:
        old = await cluster.leader()
        wanted = cluster.followers(old)[1]
        await cluster.until(lambda: wanted.driver.leader == old.name, "the follower to hear its leader")
        assert await old.driver.hand_over(wanted.name) == wanted.name
        with pytest.raises(NotLeader):
            await old.driver.hand_over()


async def test_a_leader_whose_successor_cannot_answer_goes_on() -> None:
    async with DriverCluster() as cluster:
        leader = await cluster.leader()
        wanted = cluster.followers(leader)[0].name
        await leader.driver.propose(b"x", timeout_s=5)
        cluster.isolate(wanted)
        started = asyncio.get_running_loop().time()
        with pytest.raises(NoSuccessor):
            await leader.driver.hand_over(wanted)
        assert asyncio.get_running_loop().time() - started < 10 * T_S
        assert leader.driver.core.role is Role.LEADER
        await leader.driver.propose(b"y", timeout_s=5)
