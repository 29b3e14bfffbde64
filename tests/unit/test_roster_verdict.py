"""The verdict over the rows of all replicas."""

from __future__ import annotations

from msgspec.structs import replace

from cluster.errors import PeerUnreachable
from scheduler.roster import Roster, Row, verdict


def row(name: str, role: str = "follower", term: int = 4, leader: str | None = "n1") -> Row:
    return Row(name, role, term, leader, 10, 10)


def test_three_of_three_survive_one_loss() -> None:
    found = verdict([row("n1", "leader"), row("n2"), row("n3")])
    assert (found.healthy, found.survives, found.leader, found.term) == (True, 1, "n1", 4)
    assert found.summary == "healthy; survives 1 more loss"


def test_two_of_three_survive_none_and_name_the_silent_one() -> None:
    found = verdict([row("n1", "leader"), row("n2"), Row("n3", "unreachable")])
    assert (found.healthy, found.survives) == (True, 0)
    assert found.summary == "healthy; survives 0 more losses; not reached: n3"


def test_a_lone_leader_is_no_quorum() -> None:
    found = verdict([row("n1", "leader"), Row("n2", "unreachable"), Row("n3", "unreachable")])
    assert not found.healthy
    assert found.summary.startswith("no quorum: 1 of 3 replicas answer, 2 are needed")


def test_a_deposed_leader_of_an_older_term_does_not_count() -> None:
    found = verdict([row("n1", "leader", 4), row("n2", "leader", 5, "n2"), row("n3", "follower", 5, "n2")])
    assert (found.healthy, found.leader, found.term, found.survives) == (True, "n2", 5, 0)


def test_an_election_is_said_to_be_one() -> None:
    found = verdict([row("n1", "candidate", 5, None), row("n2", term=4), row("n3", term=4)])
    assert (found.healthy, found.leader) == (False, None)
    assert "election" in found.summary


def test_a_single_replica_is_healthy_alone() -> None:
    found = verdict([row("n1", "leader")])
    assert (found.healthy, found.survives) == (True, 0)


def test_a_learner_follows_and_counts_for_nothing() -> None:
    """n3 lost its disk: until it votes again, n1 and n2 are all there is, whether it is a voter by name or not."""
    for voters in (("n1", "n2", "n3"), ("n1", "n2")):
        leading = replace(row("n1", "leader"), halves=(voters,))
        found = verdict([leading, row("n2"), row("n3", "learner")])
        assert (found.healthy, found.survives) == (True, 0)
        assert found.summary == "healthy; survives 0 more losses; learning, without a vote: n3"
        found = verdict([leading, Row("n2", "unreachable"), row("n3", "learner")])
        assert (found.healthy, found.survives) == (False, 0)
        assert found.summary.startswith(f"no quorum: 1 of {len(voters)}")


def test_while_a_configuration_is_joint_both_sets_of_voters_must_survive() -> None:
    leading = replace(row("n1", "leader"), halves=(("n1", "n2", "n3"), ("n1", "n2")))
    assert verdict([leading, row("n2"), row("n3")]).survives == 0
    found = verdict([leading, Row("n2", "unreachable"), row("n3")])
    assert not found.healthy
    assert "1 of 2 voters answer, 2 are needed" in found.summary


def test_without_a_leader_the_voters_are_those_of_whoever_knows_most() -> None:
    knows = replace(row("n1", "pre-candidate", leader=None), halves=(("n1", "n2", "n3"),))
    found = verdict([knows, Row("n2", "unreachable"), replace(row("n3", "learner", 0, None), halves=())])
    assert found.summary == "no quorum: 1 of 3 replicas answer, 2 are needed; not reached: n2"


def test_five_survive_two() -> None:
    assert verdict([row("n1", "leader"), *(row(f"n{i}") for i in range(2, 6))]).survives == 2


async def test_a_silent_member_is_shown_as_unreachable_and_others_as_they_say() -> None:
    class Wire:
        async def request(self, to: str, method: str, body: bytes, *, timeout_s: float) -> bytes:
            assert to != "n4", "who is not linked is not asked"
            if to == "n3":
                raise PeerUnreachable("gone")
            return await other.serve(body)

    def own(name: str) -> Roster:
        async def digest() -> tuple[int, str]:
            return 8, "abc"

        return Roster(
            node=name,
            members=lambda: ["n3", "n2", "n1", "n4"],
            own=lambda: Row(name, "follower", 4, "n1", 9, 9),
            digest=digest,
            peers=Wire(),
            linked=lambda: ["n2", "n3"],
        )

    other = own("n2")
    rows = await own("n1").gather(timeout_s=1, digest=True)
    assert [(r.id, r.role, r.digest, r.applied_index) for r in rows] == [
        ("n1", "follower", "abc", 8),
        ("n2", "follower", "abc", 8),
        ("n3", "unreachable", "", 0),
        ("n4", "unreachable", "", 0),
    ]
    assert {row.digest for row in await own("n1").gather(timeout_s=1, digest=False)} == {""}
