"""A replica whose state went wrong finds out, gives it up and gets another, with real threads and files."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from raft.effects import Role
from raft.errors import StateDiverged
from raft.messages import Entry
from raft.status import Standing
from tests.support.driver_cluster import DriverCluster, Replica

EVERY = 32
SMALL = {"digest_every": EVERY, "snapshot_chunk_bytes": 2000}


async def go_wrong(cluster: DriverCluster, replica: Replica, what: bytes = b"wrong") -> None:
    """Memory rots: a command that was applied has left something else behind."""
    machine = replica.machine
    await cluster.until(lambda: b"0" in machine.commands, "it to apply something")
    place = next(place for place, entry in enumerate(machine.entries) if entry.data == b"0")
    entry = machine.entries[place]
    machine.entries[place] = Entry(entry.term, entry.index, entry.kind, what)


async def write(cluster: DriverCluster, count: int) -> None:
    done = 0
    while done < count:
        leader = await cluster.leader()
        answers = await asyncio.gather(
            *[leader.driver.propose(b"%d" % number, timeout_s=5) for number in range(min(8, count - done))],
            return_exceptions=True,
        )
        done += sum(not isinstance(answer, BaseException) for answer in answers)
        await asyncio.sleep(0)


async def write_until_refused(leader: Replica) -> None:
    for _ in range(2 * EVERY):
        await leader.driver.propose(b"1", timeout_s=5)
        await asyncio.sleep(0.002)


def digests(replica: Replica) -> dict[int, str]:
    return {event["index"]: event["digest"] for event in replica.observer.of("digest")}


async def all_the_same(cluster: DriverCluster) -> None:
    """Everybody is well, and has the same state."""

    def same() -> bool:
        states = [replica.machine.entries for replica in cluster.replicas.values()]
        standings = [replica.driver.standing for replica in cluster.replicas.values()]
        return all(each is Standing.OK for each in standings) and all(state == states[0] for state in states)

    await cluster.until(same, "one state everywhere")


async def test_replicas_compare_equal_digests_at_the_same_indexes() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        await write(cluster, 3 * EVERY)
        await cluster.until(lambda: all(len(digests(r)) >= 3 for r in cluster.replicas.values()), "three digests")
        told = [digests(replica) for replica in cluster.replicas.values()]
        assert all(index % EVERY == 0 for index in told[0])
        assert told[0] == told[1] == told[2]
        assert {replica.driver.standing for replica in cluster.replicas.values()} == {Standing.OK}


async def test_a_follower_in_the_minority_gives_its_state_up_and_gets_the_leaders() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        leader = await cluster.leader()
        await write(cluster, 8)
        wrong = cluster.followers(leader)[0]
        voted, last = wrong.store.store_id, wrong.driver.core.log.hash_at(3)
        seen: list[Standing] = []
        wrong.driver.on_standing.append(lambda: seen.append(wrong.driver.standing))
        await go_wrong(cluster, wrong)
        await write(cluster, EVERY)
        await cluster.until(lambda: wrong.machine.restored == 1, "the state to be fetched")
        await all_the_same(cluster)
        assert [each for each in seen if each is not Standing.SPLIT] == [Standing.DIVERGED, Standing.OK]
        assert (wrong.store.store_id, wrong.driver.core.log.hash_at(3)) == (voted, last), "log and vote stayed"
        assert [event["op"] for event in wrong.observer.of("disk") if "op" in event].count("state-refetch") == 1
        told = [
            (event.get("first", event["index"] + 1), event["index"])
            for kind, event in wrong.observer.events
            if kind == "apply" or event.get("op") == "state-refetch"
        ]
        assert all(after[0] == before[1] + 1 for before, after in pairwise(told) if after[0] <= after[1])
        await write(cluster, EVERY)
        await cluster.until(lambda: max(digests(wrong)) == max(digests(leader)), "the next digest")
        assert digests(wrong)[max(digests(wrong))] == digests(leader)[max(digests(leader))]


async def test_it_takes_entries_and_acknowledges_them_while_its_state_is_fetched() -> None:
    """With the third replica away, every commit needs the one whose state is wrong."""
    async with DriverCluster(config=SMALL) as cluster:
        leader = await cluster.leader()
        await write(cluster, 8)
        wrong, third = cluster.followers(leader)
        leader.machine.gate.clear()  # the snapshot that it will want is not written yet
        await go_wrong(cluster, wrong)
        await write(cluster, EVERY)
        await cluster.until(lambda: wrong.driver.standing is Standing.DIVERGED, "the judgement")
        cluster.isolate(third.name)
        await leader.driver.propose(b"meanwhile", timeout_s=5)
        assert wrong.driver.standing is Standing.DIVERGED
        assert b"meanwhile" not in wrong.machine.commands, "nothing is applied to a wrong state"
        cluster.heal()
        leader.machine.gate.set()
        await all_the_same(cluster)
        assert b"meanwhile" in wrong.machine.commands


async def test_a_leader_in_the_minority_hands_over_first() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        old = await cluster.leader()
        await write(cluster, 8)
        term = old.driver.core.term
        await go_wrong(cluster, old)
        await write(cluster, EVERY)
        await cluster.until(lambda: old.machine.restored == 1, "the state to be fetched")
        await all_the_same(cluster)
        new = await cluster.leader()
        assert new is not old
        assert new.driver.core.term == term + 1
        whys = [event["why"] for event in new.observer.of("role")]
        assert f"{old.name} hands its leadership over" in whys, "it did not wait for a time-out"


async def test_no_majority_halts_writes_and_says_so() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        leader = await cluster.leader()
        await write(cluster, 8)
        for number, replica in enumerate(cluster.followers(leader)):
            await go_wrong(cluster, replica, b"wrong in way %d" % number)
        with pytest.raises(StateDiverged) as caught:
            await write_until_refused(leader)
        assert caught.value.outcome == "not-done"
        assert caught.value.retryable
        for replica in cluster.replicas.values():
            await cluster.until(lambda replica=replica: replica.driver.standing is Standing.SPLIT, "everybody to know")  # type: ignore[misc]
        assert any("writes are halted" in event["text"] for event in leader.observer.of("note"))
        assert await leader.driver.read_index(timeout_s=5), "what is there can be read"


async def test_a_third_that_comes_back_decides() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        leader = await cluster.leader()
        await write(cluster, 8)
        wrong, third = cluster.followers(leader)
        cluster.isolate(third.name)
        await go_wrong(cluster, wrong)
        with pytest.raises(StateDiverged):
            await write_until_refused(leader)
        cluster.heal()
        await all_the_same(cluster)
        await write(cluster, 8)
        assert wrong.machine.restored == 1
        assert leader.driver.core.role is Role.LEADER


async def test_a_state_that_was_given_up_is_not_used_after_a_restart() -> None:
    async with DriverCluster(config=SMALL | {"snapshot_entries": 20}) as cluster:
        leader = await cluster.leader()
        await write(cluster, 8)
        wrong = cluster.followers(leader)[0]

        def cut_off() -> None:
            if wrong.driver.standing is Standing.DIVERGED:
                cluster.isolate(wrong.name)

        wrong.driver.on_standing.append(cut_off)
        await go_wrong(cluster, wrong)
        await write(cluster, 20)
        await cluster.until(lambda: wrong.store.snapshots.held != (), "a snapshot of the wrong state")
        await write(cluster, EVERY)
        await cluster.until(lambda: wrong.store.diverged, "the mark on the disk")
        await cluster.lose_power(wrong.name)
        again = cluster.start(wrong.name)
        assert again.driver.standing is Standing.DIVERGED
        assert any(entry.data == b"wrong" for entry in again.machine.entries), "the snapshot is of the wrong state"
        cluster.heal()
        await all_the_same(cluster)
        await cluster.until(lambda: not again.store.diverged, "the mark to go")
        await cluster.stop(wrong.name)
        assert cluster.start(wrong.name).driver.standing is Standing.OK
        await all_the_same(cluster)
