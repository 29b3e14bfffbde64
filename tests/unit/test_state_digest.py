"""The digest covers everything that is replicated, and nothing that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scheduler import commands
from scheduler.engine import draft
from scheduler.evaluations import pending
from scheduler.explain import explain
from scheduler.model import NodeState
from scheduler.state import State
from scheduler.state.paged import Objects
from tests.support.scheduler_world import BAD, OOM, World, job


def busy() -> World:
    world = World("a1", "a2")
    world.submit(job(replicas=4, ports=(80,)))
    world.submit(job("api", replicas=2))
    world.schedule()
    world.runs("default/api.0")
    world.ends("default/api.1", OOM)
    world.submit(job(replicas=1, ports=(80,)))
    world.stop("api")
    world.apply(commands.StopUnknown("a1", (("default/gone.0", 3),), world.now_ms))
    return world


def replayed(world: World) -> State:
    state = State()
    for index, data in enumerate(world.log, start=1):
        state.apply(index, 1, data)
    return state


def test_replaying_the_log_gives_the_same_digest_and_the_same_views() -> None:
    world = busy()
    again = replayed(world)
    assert again.digest() == world.state.digest()
    assert again.jobs() == world.state.jobs()
    assert again.nodes() == world.state.nodes()
    assert [again.desired_for(node) for node in ("a1", "a2")] == [world.state.desired_for(n) for n in ("a1", "a2")]


def test_reading_does_not_change_the_digest() -> None:
    world = busy()
    before = replayed(world).digest()
    pending(world.state, 10**15)
    explain(world.state, "default/web", 10**15)
    world.state.job("default/web")
    world.state.world(["a1"]).used[0][:] = 7
    assert world.state.digest() == before
    assert world.free("a1") == replayed_free(world)


def replayed_free(world: World) -> tuple[int, int, int]:
    node = replayed(world).node("a1")
    assert node is not None
    return tuple(node["capacity"][key] - node["allocated"][key] for key in node["capacity"])  # type: ignore[return-value]


def test_the_digest_moves_with_every_entry() -> None:
    world = busy()
    seen = [world.state.digest()]
    world.state.advance(world.state.index + 1, 1)
    seen.append(world.state.digest())
    world.state.advance(world.state.index + 1, 2)
    seen.append(world.state.digest())
    assert len(set(seen)) == 3


def _column(name: str) -> Callable[[State], None]:
    def tamper(state: State) -> None:
        columns = state.books.attempts.table.columns
        columns[name][0] = columns[name][0] + 1

    return tamper


def _node_column(name: str) -> Callable[[State], None]:
    def tamper(state: State) -> None:
        columns = state.books.nodes.table.columns
        columns[name][1] = columns[name][1] + 1

    return tamper


def _registration(state: State) -> None:
    entries = state.books.nodes.entries
    entries[0] = replace(entries[0], state=NodeState.CORDONED)


def _job_row(**changes: object) -> Callable[[State], None]:
    def tamper(state: State) -> None:
        jobs = state.books.jobs
        number = jobs.by_id["default/web"].number
        jobs.rows[number] = replace(jobs.rows[number], **changes)

    return tamper


def _spec(state: State) -> None:
    record = state.books.jobs.by_id["default/web"]
    record.spec = replace(record.spec, backoff_limit=77)
    state.books.jobs.save(record)


def _without_values(objects: Callable[[State], Objects[Any]]) -> Callable[[State], None]:
    def tamper(state: State) -> None:
        for number, _ in list(objects(state).items()):
            objects(state).discard(number)

    return tamper


def _number(state: State) -> None:
    jobs = state.books.jobs
    row = jobs.rows[1]
    jobs.rows.discard(1)
    jobs.rows[77] = row


def _free_list(state: State) -> None:
    state.books.attempts.table._free.append(1)


def _next_number(state: State) -> None:
    state.books.jobs.next_number += 1


TAMPERINGS = {
    **{f"attempt {name}": _column(name) for name in State().books.attempts.table.columns},
    **{f"node {name}": _node_column(name) for name in State().books.nodes.table.columns},
    "job version": _job_row(version=9),
    "job shape version": _job_row(shape_version=9),
    "job submitted": _job_row(submitted_index=9),
    "job stopped": _job_row(stopped=True),
    "job requests": _job_row(requests=()),
    "job number": _number,
    "next number": _next_number,
    "free rows": _free_list,
    "registration": _registration,
    "spec": _spec,
    "stop records": lambda state: state.books.nodes.stops.clear(0),
    "exits": _without_values(lambda state: state.books.attempts.exits),
    "cgroups": _without_values(lambda state: state.books.attempts.cgroups),
    "ports": _without_values(lambda state: state.books.attempts.ports),
    "finished": lambda state: state.books.jobs.finished.update({1: 7}),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_no_part_of_the_state_can_change_unseen(what: str) -> None:
    world = busy()
    state, honest = replayed(world), replayed(world).digest()
    TAMPERINGS[what](state)
    assert state.digest() != honest, what


def test_a_difference_in_one_report_is_a_difference_in_the_digest() -> None:
    one, other = busy(), busy()
    one.ends("default/web.0", OOM)
    other.ends("default/web.0", BAD)
    assert one.state.digest() != other.state.digest()


def test_an_entry_out_of_order_is_a_bug_and_stops_the_replica() -> None:
    world = busy()
    with pytest.raises(AssertionError, match="comes after"):
        world.state.advance(world.state.index, 1)
    world.state.advance(world.state.index + 1, 3)
    with pytest.raises(AssertionError, match="older"):
        world.state.advance(world.state.index + 1, 2)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_digest_and_the_next_draft_do_not_depend_on_the_process(hash_seed: str) -> None:
    """Iterating a set anywhere would show here: string hashes differ from process to process."""
    world = busy()
    log = ",".join(data.hex() for data in world.log)
    script = (
        "import sys\n"
        "from scheduler.engine import draft\n"
        "from scheduler.state import State\n"
        "state = State()\n"
        "for index, line in enumerate(sys.stdin.read().split(','), start=1):\n"
        "    state.apply(index, 1, bytes.fromhex(line))\n"
        "print(state.digest(), draft(state, 10**12))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=log,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert ran.stdout.strip() == f"{world.state.digest()} {draft(world.state, 10**12)}"
