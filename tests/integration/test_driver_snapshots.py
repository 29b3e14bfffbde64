"""Snapshots through real drivers: real loop, real threads, disks that forget; ten times the log's bound and more."""

from __future__ import annotations

import asyncio

from raft.progress import Pace
from tests.support.driver_cluster import DriverCluster, Replica

SMALL = {
    "election_timeout_ns": 1_000_000_000,
    "snapshot_entries": 50,
    "snapshot_log_bytes": 1 << 20,
    "keep_tail_entries": 10,
    "snapshot_chunk_bytes": 4096,
    "log_entries_max": 1000,
}


async def write(leader: Replica, count: int, *, tag: str = "w", size: int = 100) -> list[bytes]:
    """So many commands, a few dozen at a time."""
    data = [f"{tag}{number:06d}".encode().ljust(size, b".") for number in range(count)]
    for start in range(0, count, 40):
        await asyncio.gather(*[leader.driver.propose(one, timeout_s=15) for one in data[start : start + 40]])
    return data


async def test_ten_times_the_logs_bound_is_written_and_it_goes_on() -> None:
    async with DriverCluster(config=SMALL | {"snapshot_entries": 300}) as cluster:
        leader = await cluster.leader()
        data = await write(leader, 10_000)
        await cluster.until(lambda: all(r.machine.commands == data for r in cluster.replicas.values()), "everybody")
        for replica in cluster.replicas.values():
            core = replica.driver.core
            assert len(core.log) < 1000
            assert replica.driver.counters.snapshots > 5
            assert replica.machine.released == replica.driver.counters.snapshots + replica.machine.hashed
            held = replica.store.snapshots.held
            assert 1 <= len(held) <= 3


async def test_a_follower_that_was_down_while_the_log_was_compacted_catches_up_by_a_snapshot() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        leader = await cluster.leader()
        data = await write(leader, 100, tag="before")
        gone = cluster.followers(leader)[0].name
        await cluster.stop(gone)
        data += await write(leader, 600, tag="while")
        back = cluster.start(gone)
        data += await write(leader, 50, tag="after")
        await cluster.until(lambda: back.machine.commands == data, "the follower")
        assert back.driver.counters.installed >= 1
        assert back.observer.of("disk"), "the trace tells of it"
        await cluster.until(lambda: leader.driver.core.progress[gone].pace is Pace.REPLICATE, "the stream")


async def test_a_transfer_goes_on_after_a_cut_link_and_a_restarted_receiver() -> None:
    async with DriverCluster(config=SMALL | {"snapshot_chunk_bytes": 2000, "log_entries_max": 100_000}) as cluster:
        leader = await cluster.leader()
        gone = cluster.followers(leader)[0].name
        await cluster.stop(gone)
        data = await write(leader, 1500, tag="while", size=400)
        back = cluster.start(gone)
        await cluster.until(lambda: back.driver.counters.chunks_taken > 20, "a part")
        cluster.isolate(gone)
        taken = back.driver.counters.chunks_taken
        await write(leader, 5, tag="x")
        cluster.heal()
        await cluster.until(lambda: back.driver.counters.chunks_taken > taken + 5, "more of it")
        await cluster.stop(gone)
        again = cluster.start(gone)
        await cluster.until(lambda: again.machine.commands[: len(data)] == data, "the follower")
        assert again.store.snapshots.resumed == 1, "it went on with the part on its disk"
        assert again.driver.counters.chunks_taken < 400


async def test_a_restart_through_a_snapshot_applies_only_what_follows_it() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        leader = await cluster.leader()
        data = await write(leader, 500)
        name = leader.name
        await cluster.stop(name)
        back = cluster.start(name)
        await cluster.until(lambda: back.machine.commands == data, "the state")
        assert back.machine.restored == 1
        assert back.driver.counters.applied < 200
        recovered = next(fields for fields in back.observer.of("append") if fields.get("recovered"))
        assert recovered["snapshot"] > 300
        assert recovered["first"] > 1


async def test_power_lost_everywhere_in_the_middle_of_snapshots_loses_nothing() -> None:
    async with DriverCluster(config=SMALL) as cluster:
        data: list[bytes] = []
        for round_number in range(3):
            leader = await cluster.leader()
            data += await write(leader, 200, tag=f"{round_number}-")
            for name in cluster.names:
                await cluster.lose_power(name)
            for name in cluster.names:
                cluster.start(name)
        await cluster.leader()
        await cluster.until(
            lambda: all(r.machine.commands[: len(data)] == data for r in cluster.replicas.values()), "everybody"
        )


async def test_consensus_goes_on_while_a_snapshot_takes_its_time() -> None:
    async with DriverCluster(config=SMALL | {"log_entries_max": 100_000}) as cluster:
        leader = await cluster.leader()
        leader.machine.gate.clear()
        data = await write(leader, 300)
        assert leader.driver.counters.snapshots == 0, "its one snapshot is still being written"
        assert leader.driver.core.log.base_index == 0, "nothing is cut before it is durable"
        leader.machine.gate.set()
        await cluster.until(lambda: leader.driver.core.log.base_index > 0, "the cut")
        await cluster.until(lambda: all(r.machine.commands == data for r in cluster.replicas.values()), "everybody")


async def test_a_full_log_refuses_and_recovers_once_snapshots_can_be_written_again() -> None:
    async with DriverCluster("n1", config=SMALL | {"log_entries_max": 400}) as cluster:
        leader = await cluster.leader()
        leader.machine.gate.clear()
        results = await asyncio.gather(
            *[leader.driver.propose(b"x", timeout_s=15) for _ in range(500)], return_exceptions=True
        )
        assert {type(each).__name__ for each in results} == {"Outcome", "LogFull"}
        leader.machine.gate.set()
        await cluster.until(lambda: len(leader.driver.core.log) < 300, "compaction")
        await leader.driver.propose(b"y", timeout_s=15)
