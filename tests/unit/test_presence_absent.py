"""When a replica counts a node as absent."""

from __future__ import annotations

from scheduler.presence import ABSENT_S, Presence
from scheduler.roster import Roster, Row


class Cluster:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.sessions: dict[str, tuple[int, int]] = {"a1": (0, 0), "a2": (0, 0)}
        self.registered = ["a1", "a2"]
        self.changes = 0

    def own(self, *, digest: bool = False) -> Row:
        return Row("n1", "leader", sessions=self.sessions)

    async def digest(self) -> tuple[int, str]:
        raise AssertionError("a poll asks for no digest")

    def changed(self) -> None:
        self.changes += 1

    def presence(self) -> Presence:
        roster = Roster(
            node="n1", members=lambda: ["n1"], own=self.own, digest=self.digest, peers=None, linked=list  # type: ignore[arg-type]
        )  # fmt: skip
        return Presence(
            roster=roster, registered=lambda: self.registered, now_s=lambda: self.now_s, on_change=self.changed
        )


async def test_a_node_whose_session_broke_is_absent_only_after_its_time_to_dial_again() -> None:
    cluster = Cluster()
    presence = cluster.presence()
    await presence.poll()
    del cluster.sessions["a1"]
    cluster.now_s += ABSENT_S - 0.1
    await presence.poll()
    assert presence.absent == ()
    cluster.now_s += 0.2
    await presence.poll()
    assert (presence.absent, cluster.changes) == (("a1",), 1)
    cluster.sessions["a1"] = (0, 0)
    await presence.poll()
    assert (presence.absent, cluster.changes) == ((), 2)


async def test_a_new_leader_gives_every_node_its_time() -> None:
    cluster = Cluster()
    cluster.sessions = {}
    presence = cluster.presence()
    await presence.poll()
    assert presence.absent == ()
    cluster.now_s += ABSENT_S + 0.1
    await presence.poll()
    assert presence.absent == ("a1", "a2")
