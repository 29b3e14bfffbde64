"""Proposals: forwarding, retries over a change of leader, and honest outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cluster.errors import PeerNotReached, PeerUnreachable
from raft.errors import NoQuorum, NotLeader, OutcomeUnknown, Overloaded, SkerryError
from scheduler.commands import SetNodeState
from scheduler.outcomes import decode_result, encode_result
from scheduler.proposals import Applied, Proposals
from scheduler.state.results import NodeResult

COMMAND = SetNodeState("a1", "cordoned", 1)
DONE = Applied(7, 3, NodeResult(index=7, node="a1", outcome="cordoned"))


class Replica:
    """A driver whose answers the test scripts."""

    def __init__(self, leader: str | None) -> None:
        self.known_leader = leader
        self.answers: list[Any] = []
        self.proposed: list[bytes] = []
        self.reads = 0
        self.applied_to: list[int] = []

    @property
    def leader(self) -> str | None:
        return self.known_leader

    async def propose(self, data: bytes, *, timeout_s: float) -> Applied:
        self.proposed.append(data)
        return await self._next()

    async def read_index(self, *, timeout_s: float) -> int:
        self.reads += 1
        index: int = await self._next()
        return index

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        self.applied_to.append(index)

    async def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return await answer() if callable(answer) else answer


class Wire:
    """Links that hand requests to other Proposals, or fail as scripted."""

    def __init__(self) -> None:
        self.reached: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {}
        self.asked: list[tuple[str, str]] = []

    async def request(self, to: str, method: str, body: bytes, *, timeout_s: float) -> bytes:
        self.asked.append((to, method))
        if to not in self.reached:
            raise PeerUnreachable(f"{to} is gone")
        return await self.reached[to](method, body)


def make(node: str, replica: Replica, wire: Wire, **options: Any) -> Proposals:
    proposals = Proposals(
        node=node, consensus=replica, peers=wire, encode_result=encode_result, decode_result=decode_result, **options
    )
    wire.reached[node] = proposals.serve
    return proposals


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Proposals], None]]:
    tasks: list[asyncio.Task[None]] = []
    yield lambda proposals: tasks.append(asyncio.create_task(proposals.run()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_leader_proposes_by_itself() -> None:
    replica, wire = Replica("n1"), Wire()
    replica.answers = [DONE]
    assert await make("n1", replica, wire).propose(COMMAND, timeout_s=1) == DONE
    assert wire.asked == []


async def test_a_follower_forwards_and_hands_back_the_result() -> None:
    wire, leading, following = Wire(), Replica("n1"), Replica("n1")
    leading.answers = [DONE]
    make("n1", leading, wire)
    applied = await make("n2", following, wire).propose(COMMAND, timeout_s=1)
    assert applied == DONE
    assert wire.asked == [("n1", "propose")]
    assert following.proposed == []


async def test_without_a_leader_the_answer_is_not_done() -> None:
    replica, wire = Replica(None), Wire()
    with pytest.raises(NotLeader) as caught:
        await make("n1", replica, wire).propose(COMMAND, timeout_s=0.05)
    assert caught.value.outcome == "not-done"
    assert replica.proposed == []


async def test_an_attempt_lost_with_its_leader_is_repeated_at_the_next_one() -> None:
    wire, following, next_leader = Wire(), Replica("n1"), Replica("n3")
    next_leader.answers = [DONE]
    make("n3", next_leader, wire)
    proposals = make("n2", following, wire)

    async def hang(method: str, body: bytes) -> bytes:
        following.known_leader = "n3"  # n1 died with our request; n3 was elected
        proposals.leader_changed()
        await asyncio.Event().wait()
        raise AssertionError

    wire.reached["n1"] = hang
    assert await proposals.propose(COMMAND, timeout_s=5) == DONE
    assert [to for to, _ in wire.asked] == ["n1", "n3"]


async def test_an_attempt_without_an_answer_ends_as_unknown() -> None:
    replica, wire = Replica("n1"), Wire()
    with pytest.raises(OutcomeUnknown) as caught:
        await make("n2", replica, wire).propose(COMMAND, timeout_s=0.1)
    assert caught.value.outcome == "unknown"
    assert len(wire.asked) > 1, "it is asked again until the deadline"


async def test_a_request_that_never_left_is_not_done() -> None:
    replica, wire = Replica("n1"), Wire()

    async def refuse(method: str, body: bytes) -> bytes:
        raise PeerNotReached("the link is down")

    wire.reached["n1"] = refuse
    with pytest.raises(PeerNotReached) as caught:
        await make("n2", replica, wire).propose(COMMAND, timeout_s=0.1)
    assert caught.value.outcome == "not-done"


async def test_a_refusal_after_an_open_attempt_stays_unknown() -> None:
    replica, wire = Replica("n2"), Wire()
    replica.answers = [OutcomeUnknown("timed out"), Overloaded("too much")]
    with pytest.raises(OutcomeUnknown):
        await make("n2", replica, wire).propose(COMMAND, timeout_s=1)


@pytest.mark.parametrize("code", ["overloaded", "log-full"])
async def test_a_refusal_of_the_leader_crosses_the_link_with_its_code(code: str) -> None:
    wire, leading = Wire(), Replica("n1")
    error = Overloaded("too much", hint="wait")
    error.code = code  # type: ignore[misc]
    leading.answers = [error]
    make("n1", leading, wire)
    with pytest.raises(SkerryError) as caught:
        await make("n2", Replica("n1"), wire).propose(COMMAND, timeout_s=1)
    assert (caught.value.code, caught.value.outcome, caught.value.hint) == (code, "not-done", "wait")


async def test_a_stale_belief_about_the_leader_is_corrected() -> None:
    wire, following, other, leading = Wire(), Replica("n1"), Replica("n3"), Replica("n3")
    other.answers = [NotLeader("not me", leader="n3")]
    leading.answers = [DONE]
    make("n1", other, wire)
    make("n3", leading, wire)
    proposals = make("n2", following, wire)

    async def learn() -> None:
        following.known_leader = "n3"
        proposals.leader_changed()

    asyncio.get_running_loop().call_later(0.01, lambda: asyncio.ensure_future(learn()))
    assert await proposals.propose(COMMAND, timeout_s=5) == DONE


async def test_proposals_that_wait_are_bounded() -> None:
    replica, wire = Replica("n1"), Wire()
    stuck = asyncio.Event()

    async def hang() -> Applied:
        await stuck.wait()
        return DONE

    replica.answers = [hang, hang, hang]
    proposals = make("n1", replica, wire, waiting_max=2)
    waiting = [asyncio.ensure_future(proposals.propose(COMMAND, timeout_s=5)) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert proposals.waiting == 2
    with pytest.raises(Overloaded):
        await proposals.propose(COMMAND, timeout_s=5)
    stuck.set()
    assert await asyncio.gather(*waiting) == [DONE, DONE]
    assert proposals.waiting == 0


async def test_barriers_asked_together_share_one_round(running: Callable[[Proposals], None]) -> None:
    replica, wire = Replica("n1"), Wire()
    replica.answers = [11, 12]
    proposals = make("n1", replica, wire)
    running(proposals)
    assert await asyncio.gather(*(proposals.barrier(timeout_s=1) for _ in range(50))) == [11] * 50
    assert replica.reads == 1


async def test_a_barrier_asked_during_a_round_waits_for_the_next(running: Callable[[Proposals], None]) -> None:
    replica, wire = Replica("n1"), Wire()
    begun, finish = asyncio.Event(), asyncio.Event()

    async def first_round() -> int:
        begun.set()
        await finish.wait()
        return 11

    replica.answers = [first_round, 12]
    proposals = make("n1", replica, wire)
    running(proposals)
    early = asyncio.ensure_future(proposals.barrier(timeout_s=2))
    await begun.wait()
    late = asyncio.ensure_future(proposals.barrier(timeout_s=2))
    await asyncio.sleep(0)
    finish.set()
    assert (await early, await late) == (11, 12)


async def test_a_followers_barrier_waits_until_the_index_is_applied_here(
    running: Callable[[Proposals], None],
) -> None:
    wire, leading, following = Wire(), Replica("n1"), Replica("n1")
    leading.answers = [42]
    make("n1", leading, wire)
    proposals = make("n2", following, wire)
    running(proposals)
    assert await proposals.barrier(timeout_s=1) == 42
    assert following.applied_to == [42]


async def test_a_barrier_without_a_quorum_fails_in_time(running: Callable[[Proposals], None]) -> None:
    proposals = make("n1", Replica(None), Wire())
    running(proposals)
    with pytest.raises(NoQuorum):
        await proposals.barrier(timeout_s=0.1)


async def test_garbage_from_a_peer_is_answered_not_raised() -> None:
    proposals = make("n1", Replica("n1"), Wire())
    for method in ("propose", "read-index"):
        answer = await proposals.serve(method, b"\xc1garbage")
        assert b"bad-call" in answer
