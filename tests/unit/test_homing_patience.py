"""When an agent is sent to its node's owner: settled, owner there, few at a time, and seldom if in vain."""

from __future__ import annotations

import asyncio

from agents.dialer import Rotation
from cluster.dice import SeededDice
from scheduler.homing import MOVES_MAX, SETTLED_S, SETTLED_S_MAX, Homing, Patience
from scheduler.session import OWNER_IS
from tests.support.virtual_loop import run_virtually


def owner_is_n2(node: str) -> str | None:
    return "n2"


def test_a_session_is_sent_on_once_it_has_settled() -> None:
    patience, held = Patience(), {"a1": object()}
    assert patience.due(held, owner_is_n2, ["n2"], 100.0) == []
    assert patience.due(held, owner_is_n2, ["n2"], 99.9 + SETTLED_S) == []
    assert patience.due(held, owner_is_n2, ["n2"], 100.0 + SETTLED_S) == [("a1", "n2")]


def test_nobody_is_sent_to_an_owner_that_is_not_there_or_to_nobody() -> None:
    patience, held = Patience(), {"a1": object()}
    for now_s in (0.0, 20.0, 40.0):
        assert patience.due(held, owner_is_n2, ["n3"], now_s) == []
        assert patience.due(held, lambda node: None, ["n2", "n3"], now_s) == []
    assert patience.due(held, owner_is_n2, ["n2"], 41.0) == [("a1", "n2")]


def test_an_agent_that_comes_back_is_asked_again_after_twice_the_time_up_to_a_bound() -> None:
    patience, now_s, waits = Patience(), 0.0, []
    for _ in range(9):
        held = {"a1": object()}
        began_s = now_s
        while not patience.due(held, owner_is_n2, ["n2"], now_s):
            now_s += 1.0
        waits.append(now_s - began_s)
        patience.due({}, owner_is_n2, ["n2"], now_s)
    assert waits == [10, 20, 40, 80, 160, 320, 640, 640, 640]
    assert waits[-1] == SETTLED_S_MAX
    held = {"a1": object()}
    patience.due(held, lambda node: "n3", ["n3"], now_s)
    assert patience.due(held, lambda node: "n3", ["n3"], now_s + SETTLED_S) == [("a1", "n3")], "another owner, anew"


def test_a_great_arc_moves_a_few_at_a_time() -> None:
    patience, held = Patience(), {f"a{number}": object() for number in range(120)}
    patience.due(held, owner_is_n2, ["n2"], 0.0)
    moved = []
    for now_s in (20.0, 21.0, 22.0, 23.0):
        due = patience.due(held, owner_is_n2, ["n2"], now_s)
        moved.append(len(due))
        for node, _ in due:
            del held[node]
    assert moved == [MOVES_MAX, MOVES_MAX, 20, 0]


def test_the_goodbye_names_the_owner() -> None:
    class Session:
        said = ""

        async def end(self, why: str) -> None:
            self.said = why

    async def main() -> None:
        mine, other = Session(), Session()
        homing = Homing(
            held=lambda: {"a1": mine, "a2": other},
            owner_of={"a1": "n1", "a2": "n2"}.get,
            targets=lambda: ["n2", "n3"],
            now_s=asyncio.get_running_loop().time,
        )
        task = asyncio.create_task(homing.run())
        await asyncio.sleep(SETTLED_S + 2.0)
        assert (mine.said, other.said) == ("", OWNER_IS + "n2")
        task.cancel()

    run_virtually(main())


def test_an_agent_dials_the_owner_it_was_sent_to_next_and_then_goes_on_as_ever() -> None:
    addresses = ("h1:1", "h2:1", "h3:1")
    rotation = Rotation(addresses, SeededDice(3))
    met = {}
    for name in ("x", "y", "z"):
        met[name] = rotation.address
        rotation.accepted(name)
        rotation.failed(fatal=False)
    for name, address in met.items():
        assert rotation.sent_to(name) < 1.0
        assert rotation.address == address
    rotation.failed(fatal=False)
    assert rotation.address != met["z"]


def test_an_agent_that_never_met_its_owner_tries_where_no_other_replica_answered() -> None:
    rotation = Rotation(("h1:1", "h2:1", "h3:1"), SeededDice(4))
    seen = []
    for name in ("x", "y"):
        seen.append(rotation.address)
        rotation.accepted(name)
        rotation.failed(fatal=False)
    rotation.sent_to("z")
    assert rotation.address not in seen
