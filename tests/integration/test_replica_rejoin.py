"""A replica that lost its disk, on real processes: no vote, then a learner, then a voter again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.replicas import ReplicaCluster, ReplicaProcess


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ReplicaCluster]:
    async with ReplicaCluster(tmp_path, 3) as cluster:
        await cluster.start()
        await cluster.whole()
        for number in range(5):
            await cluster.submit(f"j{number}", via="n1")
        yield cluster


def events(directory: Path, node: str, kind: str) -> list[dict[str, Any]]:
    """A node's events of one kind, over all its lives, in order; a line that is being written is left out."""
    found = []
    for path in sorted((directory / "trace").glob(f"{node}-*.jsonl"), key=lambda each: each.stat().st_mtime):
        for line in path.read_text().split("\n")[:-1]:
            event = json.loads(line)
            if event["k"] == kind:
                found.append(event)
    return found


def configurations(directory: Path, node: str) -> list[str]:
    """The configurations that counted on a node, in its own words, without stores."""
    notes = [event["text"] for event in events(directory, node, "note")]
    return [
        re.sub(r"^configuration \d+: |:[0-9a-f]{4}", "", text) for text in notes if text.startswith("configuration")
    ]


async def row(cluster: ReplicaCluster, name: str, *, via: str) -> dict[str, Any]:
    status = await cluster.call("GET", "/v1/status", via=via)
    return next(each for each in status["replicas"] if each["id"] == name) | {"healthy": status["healthy"]}


async def has_all(cluster: ReplicaCluster, name: str, jobs: set[str]) -> bool:
    """Whether the replica answers with these jobs from its own state."""
    return jobs <= {job.removeprefix("default/") for job in await cluster.jobs(name, stale=True)}


def incarnation(directory: Path, node: str) -> str:
    """Of its newest process."""
    return max((directory / "trace").glob(f"{node}-*.jsonl"), key=lambda each: each.stat().st_mtime).stem.split("-")[1]


def voted(directory: Path, node: str) -> list[int]:
    return [event["term"] for event in events(directory, node, "vote")]


async def test_a_replica_that_lost_its_directory_has_no_vote_learns_and_becomes_a_voter_again(
    cluster: ReplicaCluster, tmp_path: Path
) -> None:
    for name in ("n1", "n3"):
        await cluster.replicas[name].kill()
    (tmp_path / "n3").rename(tmp_path / "old")
    before = voted(tmp_path, "n3")
    await cluster.start("n3")

    async def asks() -> bool:
        found = await row(cluster, "n3", via="n2")
        return found["role"] == "learner"

    await cluster.until(asks)
    term = (await row(cluster, "n2", via="n2"))["term"]

    async def was_asked_for_its_vote() -> bool:
        asked = [event for event in events(tmp_path, "n3", "recv") if event["type"] == "vote-request"]
        return len([event for event in asked if event["inc"] == incarnation(tmp_path, "n3")]) >= 8

    await cluster.until(was_asked_for_its_vote)
    left = await row(cluster, "n2", via="n2")
    assert (left["healthy"], left["term"]) == (False, term), "n2 and an empty n3 elect nobody"

    await cluster.start("n1")
    leader = await cluster.whole()
    assert {job.split("/")[-1] for job in await cluster.jobs("n3")} >= {f"j{number}" for number in range(5)}

    async def came_back() -> bool:
        return configurations(tmp_path, leader)[-4:] == [
            "voters n1 n2, and the old voters n1 n2 n3, learners n3",
            "voters n1 n2, learners n3",
            "voters n1 n2 n3, and the old voters n1 n2",
            "voters n1 n2 n3",
        ]

    await cluster.until(came_back)
    assert voted(tmp_path, "n3") == before, "it has not voted since"
    replies = [event for event in events(tmp_path, "n3", "send") if event["type"] == "vote-reply"]
    assert not [event for event in replies if event["inc"] == incarnation(tmp_path, "n3")]

    await cluster.replicas["n1" if leader != "n1" else "n2"].kill()
    await cluster.formed()  # the new store is counted: n3 and one other are a majority
    await cluster.submit("after", via="n3")
    await _the_old_store_is_refused(cluster, tmp_path)


async def _the_old_store_is_refused(cluster: ReplicaCluster, tmp_path: Path) -> None:
    """The directory that was lost turns up again, after another store took its place."""
    await cluster.replicas["n3"].kill()
    settings = cluster.settings("n3") | {"SKERRY_REPLICA_DIR": str(tmp_path / "old")}
    old = ReplicaProcess("n3", tmp_path / "again", settings)
    await old.start()

    async def refused() -> bool:
        return "retired-store" in old.said()

    try:
        await cluster.until(refused)
    finally:
        await old.kill()
    await cluster.start("n3")
    await cluster.formed()


async def test_a_log_damaged_in_the_middle_retires_its_store_and_the_replica_comes_back(
    cluster: ReplicaCluster, tmp_path: Path
) -> None:
    assert await cluster.replicas["n2"].stop() == 0
    segment = min((tmp_path / "n2").glob("log-*.seg"))
    data = bytearray(segment.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    data[used // 2] ^= 0xFF
    segment.write_bytes(bytes(data))
    store = json.loads((tmp_path / "n2" / "identity.json").read_text())["store"]
    await cluster.start("n2")
    await cluster.whole()

    retired = tmp_path / "n2" / f"retired-{store}"
    assert (retired / segment.name).read_bytes() == bytes(data), "what is left of it is kept as it was"
    identity = json.loads((tmp_path / "n2" / "identity.json").read_text())
    assert identity["store"] != store
    assert identity["replaces"] == store
    assert "store-corrupt" in cluster.replicas["n2"].said()

    async def is_in_the_trace() -> bool:
        notes = [event for event in events(tmp_path, "n2", "note") if f"store {store} is damaged" in event["text"]]
        return bool(notes) and configurations(tmp_path, "n1")[-1] == "voters n1 n2 n3"

    await cluster.until(is_in_the_trace)
    await cluster.until(lambda: has_all(cluster, "n2", {f"j{number}" for number in range(5)}))
    shutil.rmtree(retired)
    assert await cluster.replicas["n2"].stop() == 0
    await cluster.start("n2")
    await cluster.whole()
