"""Three replica processes: acknowledgement, forwarding, request ids, the loss of leaders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.replicas import Answered, ReplicaCluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplicaCluster]:
    """For tests that break nothing."""
    async with ReplicaCluster(tmp_path_factory.mktemp("shared")) as made:
        await made.start()
        await made.whole()
        yield made


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ReplicaCluster]:
    async with ReplicaCluster(tmp_path) as made:
        await made.start()
        await made.whole()
        yield made


@pytest.mark.asyncio(loop_scope="module")
async def test_a_job_submitted_to_any_replica_is_acknowledged_and_seen_everywhere(shared: ReplicaCluster) -> None:
    for number, name in enumerate(shared.names):
        answer = await shared.submit(f"job{number}", via=name)
        assert (answer["v"], answer["job"], answer["version"]) == (1, f"default/job{number}", 1)
        assert answer["index"] > 0
    for name in shared.names:
        assert {"default/job0", "default/job1", "default/job2"} <= set(await shared.jobs(name))


@pytest.mark.asyncio(loop_scope="module")
async def test_the_same_request_id_twice_is_one_job(shared: ReplicaCluster) -> None:
    first = await shared.submit("twice", via="n1", request_id="r-1")
    again = await shared.submit("twice", via="n2", request_id="r-1")
    assert (again["index"], again["version"]) == (first["index"], first["version"])
    with pytest.raises(Answered) as caught:
        await shared.submit("twice", via="n3", request_id="r-1", command=["/bin/false"])
    assert (caught.value.status, caught.value.code) == (409, "request-id-reused")


@pytest.mark.asyncio(loop_scope="module")
async def test_compare_and_set_refuses_a_version_that_moved_on(shared: ReplicaCluster) -> None:
    await shared.submit("cas", via="n1", request_id="r-1", expected_version=0)
    with pytest.raises(Answered) as caught:
        await shared.submit("cas", via="n2", request_id="r-2", expected_version=0, command=["/bin/false"])
    assert (caught.value.status, caught.value.code, caught.value.outcome) == (409, "version-conflict", "not-done")
    answer = await shared.submit("cas", via="n2", request_id="r-3", expected_version=1, command=["/bin/false"])
    assert answer["version"] == 2


@pytest.mark.asyncio(loop_scope="module")
async def test_status_has_the_keys_of_the_contract_and_equal_digests(shared: ReplicaCluster) -> None:
    await shared.submit("one", via="n1")
    status = await shared.call("GET", "/v1/status", via="n2")
    assert {"healthy", "survives", "leader", "term", "replicas", "nodes", "summary"} <= set(status)
    assert (status["healthy"], status["survives"], status["summary"]) == (True, 1, "healthy; survives 1 more loss")
    for row in status["replicas"]:
        assert {"id", "role", "term", "commit_index", "applied_index", "digest"} <= set(row)

    async def equal() -> bool:
        rows = (await shared.call("GET", "/v1/status", via="n2"))["replicas"]
        return len({(row["applied_index"], row["digest"]) for row in rows}) == 1

    assert await shared.until(equal)


async def test_the_next_write_after_a_leader_is_killed_is_acknowledged_within_two_seconds(
    cluster: ReplicaCluster,
) -> None:
    for round_number in range(3):
        leader = await cluster.whole()
        acked = [f"{round_number}-{i}" for i in range(5)]
        for name in acked:
            await cluster.submit(f"job-{name}", via=leader)
        await cluster.replicas[leader].kill()
        survivor = next(cluster.followers(leader))
        started = time.monotonic()
        await cluster.submit(f"after-{round_number}", via=survivor)
        took_s = time.monotonic() - started
        assert took_s < 2.0, f"{took_s:.2f} s"
        jobs = await cluster.jobs(survivor)
        assert {f"default/job-{name}" for name in acked} <= set(jobs)
        await cluster.start(leader)
    await cluster.whole()
    assert len(await cluster.jobs(leader)) == 18


async def test_calls_in_flight_when_the_leader_dies_end_well_or_say_what_they_do_not_know(
    cluster: ReplicaCluster,
) -> None:
    leader = await cluster.formed()
    follower = next(cluster.followers(leader))
    outcomes: dict[str, str] = {}

    async def write(number: int) -> None:
        name = f"load-{number}"
        try:
            await cluster.submit(name, via=follower if number % 2 else leader)
            outcomes[name] = "ok"
        except Answered as answered:
            outcomes[name] = str(answered.outcome)
        except aiohttp.ClientError:
            outcomes[name] = "unknown"

    async def kill() -> None:
        await asyncio.sleep(0.05)
        await cluster.replicas[leader].kill()

    await asyncio.gather(kill(), *(write(number) for number in range(200)))
    jobs = await cluster.jobs(follower)
    acked = {f"default/{name}" for name, outcome in outcomes.items() if outcome == "ok"}
    refused = {f"default/{name}" for name, outcome in outcomes.items() if outcome == "not-done"}
    assert acked <= set(jobs), "nothing acknowledged is lost"
    assert not refused & set(jobs), "what was said not to be done was not done"
    for name, outcome in outcomes.items():
        if outcome == "unknown":  # asked again with the same id it is resolved
            again = await cluster.submit(name, via=follower)
            assert again["version"] == 1
    assert len(await cluster.jobs(follower)) == len(
        acked | {f"default/{n}" for n, o in outcomes.items() if o == "unknown"}
    )


async def test_after_killing_everything_the_state_is_what_was_acknowledged(cluster: ReplicaCluster) -> None:
    answers = {}
    for number in range(20):
        answers[f"default/j{number}"] = await cluster.submit(f"j{number}", via=cluster.names[number % 3])
    for replica in cluster.replicas.values():
        await replica.kill()
    await cluster.start()
    await cluster.whole()
    jobs = await cluster.jobs("n1")
    assert {name: job["index"] for name, job in jobs.items()} == {n: a["index"] for n, a in answers.items()}


async def test_without_a_quorum_status_answers_quickly_and_writes_are_refused_honestly(
    cluster: ReplicaCluster,
) -> None:
    leader = await cluster.formed()
    await cluster.submit("before", via=leader)
    for name in cluster.followers(leader):
        await cluster.replicas[name].kill()
    started = time.monotonic()
    status = await cluster.call("GET", "/v1/status", via=leader)
    assert time.monotonic() - started < 1.0
    assert status["healthy"] is False
    assert "no quorum" in status["why"]
    with pytest.raises(Answered) as caught:
        await cluster.submit("alone", via=leader)
    assert caught.value.code in ("not-leader", "no-quorum", "outcome-unknown")
    with pytest.raises(Answered) as caught:
        await cluster.jobs(leader)
    assert caught.value.code in ("not-leader", "no-quorum")
    assert "default/before" in await cluster.jobs(leader, stale=True)


async def test_sigterm_ends_a_replica_in_order_within_two_seconds(cluster: ReplicaCluster) -> None:
    leader = await cluster.formed()
    started = time.monotonic()
    assert await cluster.replicas[leader].stop() == 0
    assert time.monotonic() - started < 2.0
    assert "stopped" in cluster.replicas[leader].said()
    await cluster.submit("goes-on", via=next(cluster.followers(leader)))


async def test_a_single_replica_is_a_cluster_of_its_own(tmp_path: Path) -> None:
    async with ReplicaCluster(tmp_path, 1) as alone:
        await alone.start()
        assert await alone.formed() == "n1"
        answer = await alone.submit("solo", via="n1")
        assert answer["version"] == 1
        assert (await alone.call("GET", "/v1/status", via="n1"))["survives"] == 0
