"""Links between two replicas over real sockets: delivery, requests, time-outs, restarts."""

from __future__ import annotations

import asyncio
import json

import pytest

from cluster.errors import PeerError, PeerNotReached, PeerUnreachable
from raft.errors import NotLeader
from tests.support.link_bed import Member, append, both_up, is_up, pair, reply, until


async def test_messages_arrive_in_order_in_both_directions():
    async with pair() as (one, two, _):
        await both_up(one, two)
        for number in range(200):
            one.links.send("n2", append(number, entries=3))
            two.links.send("n1", reply(number))
        await until(lambda: len(two.heard) == 200 and len(one.heard) == 200, "all messages arrived")
        assert two.indexes("n1") == list(range(200))
        assert two.heard[0] == ("n1", append(0, entries=3))
        assert [m.match_index for _, m in one.heard] == list(range(200))


async def test_messages_of_one_turn_of_the_loop_share_a_frame():
    async with pair() as (one, two, _):
        await both_up(one, two)
        before = one.links.peers_status()[0].sent_bytes
        for number in range(100):
            one.links.send("n2", append(number))
        await until(lambda: len(two.heard) == 100, "all messages arrived")
        status = one.links.peers_status()[0]
        assert status.sent_messages == 100
        assert status.sent_bytes - before < 100 * 30  # heartbeats of about a dozen bytes, not a frame each


async def test_a_message_to_an_unknown_or_absent_peer_is_dropped_without_harm():
    one = Member("n1")
    await one.listen_first()
    one.start({"n1": "x:1", "n9": "127.0.0.1:9"})
    try:
        one.links.send("n7", append(1))
        one.links.send("n9", append(1))
        assert one.links.peers_status()[0].dropped_messages == 1
    finally:
        await one.stop()


async def test_a_megabyte_batch_passes_and_leaves_heartbeats_their_turn():
    async with pair() as (one, two, _):
        await both_up(one, two)
        for number in range(8):
            one.links.send("n2", append(number, entries=8000))
        await until(lambda: len(two.heard) == 8, "the large appends arrived")
        assert len(two.heard[-1][1].entries) == 8000


async def test_a_request_is_answered_over_the_reverse_link():
    async with pair() as (one, two, _):
        assert await one.links.request("n2", "read-index", b"body", timeout_s=3) == b"read-index:body"
        assert two.served == [("n1", "read-index", b"body")]


async def test_an_error_of_the_serving_side_arrives_with_code_hint_and_details():
    async with pair() as (one, two, _):
        two.serve_error = NotLeader("n2 does not lead", hint="ask n3", leader="n3")
        with pytest.raises(PeerError) as caught:
            await one.links.request("n2", "propose", b"", timeout_s=3)
        error = caught.value
        assert (error.peer_code, error.hint, error.peer_retryable, error.peer_outcome) == (
            "not-leader",
            "ask n3",
            True,
            "not-done",
        )
        assert error.details["leader"] == "n3"


async def test_an_unexpected_exception_while_serving_is_an_internal_error_and_the_link_stays():
    async with pair() as (one, two, _):
        two.serve_error = ValueError("secret text")
        with pytest.raises(PeerError) as caught:
            await one.links.request("n2", "propose", b"", timeout_s=3)
        assert caught.value.peer_code == "internal"
        assert "secret text" not in str(caught.value)
        two.serve_error = None
        assert await one.links.request("n2", "again", b"", timeout_s=3) == b"again:"


async def test_a_request_without_answer_ends_at_its_deadline_with_unknown_outcome():
    async with pair() as (one, two, _):
        await both_up(one, two)
        two.hold = asyncio.Event()
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises((PeerUnreachable, PeerError)) as caught:
            await one.links.request("n2", "propose", b"", timeout_s=0.3)
        assert 0.2 < loop.time() - started < 2.0
        outcome = caught.value.peer_outcome if isinstance(caught.value, PeerError) else caught.value.outcome
        assert outcome == "unknown"
        assert two.served


async def test_a_request_to_a_peer_that_is_down_was_certainly_not_done():
    one = Member("n1")
    await one.listen_first()
    one.start({"n1": "x:1", "n2": "127.0.0.1:9"})
    try:
        with pytest.raises(PeerNotReached) as caught:
            await one.links.request("n2", "propose", b"", timeout_s=5)
        assert caught.value.outcome == "not-done"
    finally:
        await one.stop()


async def test_more_requests_than_the_limit_are_refused_as_overloaded():
    async with pair() as (one, two, _):
        await both_up(one, two)
        two.hold = asyncio.Event()
        waiting = [asyncio.create_task(one.links.request("n2", "slow", b"", timeout_s=5)) for _ in range(4)]
        await until(lambda: len(two.served) == 4, "four requests are in progress")
        with pytest.raises(PeerError) as caught:
            await one.links.request("n2", "fifth", b"", timeout_s=5)
        assert (caught.value.peer_code, caught.value.peer_retryable) == ("overloaded", True)
        two.hold.set()
        assert await asyncio.gather(*waiting) == [b"slow:"] * 4


async def test_a_request_in_flight_fails_at_once_when_the_peer_dies():
    async with pair() as (one, two, _):
        await both_up(one, two)
        two.hold = asyncio.Event()
        task = asyncio.create_task(one.links.request("n2", "propose", b"", timeout_s=30))
        await until(lambda: two.served, "the request is in progress")
        loop = asyncio.get_running_loop()
        started = loop.time()
        await two.stop()
        with pytest.raises(PeerUnreachable) as caught:
            await task
        assert caught.value.outcome == "unknown"
        assert loop.time() - started < 5.0


async def test_a_restarted_peer_is_reached_again_within_a_quarter_second():
    async with pair() as (one, two, _):
        await both_up(one, two)
        addresses = {"n1": f"127.0.0.1:{one.port}", "n2": "127.0.0.1:1"}
        await two.stop()
        await until(lambda: not is_up(one, "n2"), "the loss is noticed")
        loop = asyncio.get_running_loop()
        refused_until = loop.time() + 0.5
        await until(lambda: loop.time() > refused_until, "dials were refused for a while")
        await two.listen_first()
        two.start(addresses)
        started = loop.time()
        heard = len(two.heard)

        def arrived() -> bool:
            one.links.send("n2", append(1))
            return len(two.heard) > heard

        await until(arrived, "a message arrives at the restarted peer")
        assert loop.time() - started < 0.75  # 190 ms of jittered pause at most; the rest is for a loaded machine


async def test_the_trace_pairs_every_send_with_its_recv(tmp_path):
    async with pair(trace_dir=tmp_path) as (one, two, _):
        await both_up(one, two)
        for number in range(20):
            one.links.send("n2", append(number, entries=1))
        await one.links.request("n2", "hello", b"", timeout_s=3)
        await until(lambda: len(two.heard) == 20, "all arrived")
    events = [json.loads(line) for path in sorted(tmp_path.iterdir()) for line in path.read_text().splitlines()]
    sends = {e["m"]: e for e in events if e["k"] == "send"}
    recvs = {e["m"]: e for e in events if e["k"] == "recv"}
    assert len([e for e in sends.values() if e["type"] == "append"]) == 20
    assert set(recvs) == set(sends)
    for message, recv in recvs.items():
        send = sends[message]
        assert (send["n"], recv["n"]) in {("n1", "n2"), ("n2", "n1")}
        assert (send["type"], send["bytes"]) == (recv["type"], recv["bytes"])
        assert recv["lc"] > send["lc"]
        assert recv["hlc"] > send["hlc"]
    assert {e["what"] for e in events if e["k"] == "conn"} >= {"opened"}
    assert not any("a-token-for-tests" in json.dumps(e) for e in events)


async def test_heartbeats_are_sampled_and_work_is_not(tmp_path):
    async with pair(trace_dir=tmp_path, heartbeat_sample=10) as (one, two, _):
        await both_up(one, two)
        for number in range(100):
            one.links.send("n2", append(number))
        one.links.send("n2", append(100, entries=1))
        await until(lambda: len(two.heard) == 101, "all arrived")
    events = [json.loads(line) for path in sorted(tmp_path.iterdir()) for line in path.read_text().splitlines()]
    sends = [e for e in events if e["k"] == "send" and e["type"] == "append"]
    recvs = [e for e in events if e["k"] == "recv" and e["type"] == "append"]
    assert len(sends) == len(recvs) == 11
    assert sends[-1]["index"] == 101


async def test_routine_calls_are_sampled_on_both_sides_alike_and_others_are_not(tmp_path):
    async with pair(trace_dir=tmp_path, heartbeat_sample=10, routine=("row",)) as (one, two, _):
        await both_up(one, two)
        for _ in range(20):
            assert await one.links.request("n2", "row", b"", timeout_s=3) == b"row:"
        for _ in range(3):
            await one.links.request("n2", "propose", b"", timeout_s=3)
    events = [json.loads(line) for path in sorted(tmp_path.iterdir()) for line in path.read_text().splitlines()]
    sends = {e["m"]: e for e in events if e["k"] == "send"}
    recvs = {e["m"]: e for e in events if e["k"] == "recv"}
    assert sends.keys() == recvs.keys()
    asked = [e["method"] for e in sends.values() if e["type"] == "request"]
    assert (asked.count("row"), asked.count("propose")) == (2, 3)
    assert len([e for e in sends.values() if e["type"] == "answer"]) == 5
