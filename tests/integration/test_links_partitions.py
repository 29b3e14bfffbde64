"""Links under cuts: each direction alone, healing with and without the end of the old connections."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import PeerUnreachable
from tests.support.link_bed import Member, append, both_up, pair, until

HEAL_S = 0.8  # 300 ms are promised on a quiet machine; tests share theirs


async def flows(source: Member, target: Member, base: int) -> None:
    """Wait until a fresh message of `source` arrives at `target`; sends one each turn."""
    number = base

    def arrived() -> bool:
        nonlocal number
        number += 1
        source.links.send(target.node, append(number))
        return any(index > base for index in target.indexes(source.node))

    await until(arrived, f"messages flow from {source.node} to {target.node}")


async def lost(source: Member, target: Member, relay_swallows, base: int) -> None:
    """Send until the cut has swallowed something new."""
    before = relay_swallows()

    def swallowed() -> bool:
        source.links.send(target.node, append(base))
        return relay_swallows() > before

    await until(swallowed, "the cut swallows messages")
    assert base not in target.indexes(source.node)


async def wait_s(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    await until(lambda: loop.time() >= end, "time passed", seconds + 5)


async def test_a_cut_of_one_direction_leaves_the_other_open():
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        # n1 → n2: what n1 sends on its own link, and what n1 answers on n2's
        relays["n1~n2"].cut(forward=True, backward=False)
        relays["n2~n1"].cut(forward=False, backward=True)
        await lost(one, two, lambda: relays["n1~n2"].forward_bytes_swallowed, 5000)
        await flows(two, one, 100)
        await wait_s(3.5)  # beyond every time-out for proof: the open direction must not be given up
        await flows(two, one, 10_000)
        assert 5000 not in two.indexes("n1")


@pytest.mark.parametrize("cut_s", [0.3, 4.0])
async def test_traffic_flows_again_soon_after_a_partition_ends_with_eof(cut_s):
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        for relay in relays.values():
            relay.cut()
        await lost(one, two, lambda: relays["n1~n2"].forward_bytes_swallowed, 5000)
        await wait_s(cut_s)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for relay in relays.values():
            relay.heal()
        await asyncio.gather(flows(one, two, 10_000), flows(two, one, 20_000))
        assert loop.time() - started < HEAL_S


async def test_a_connection_that_hangs_for_ever_after_a_cut_is_replaced():
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        for relay in relays.values():
            relay.cut()
        await lost(one, two, lambda: relays["n1~n2"].forward_bytes_swallowed, 5000)
        for relay in relays.values():
            relay.heal(end_connections=False)
        await asyncio.gather(flows(one, two, 10_000), flows(two, one, 20_000))


async def test_a_long_cut_that_leaves_connections_hanging_heals_at_once():
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        for relay in relays.values():
            relay.cut()
        await wait_s(4.0)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for relay in relays.values():
            relay.heal(end_connections=False)
        await asyncio.gather(flows(one, two, 10_000), flows(two, one, 20_000))
        assert loop.time() - started < HEAL_S


async def test_requests_into_a_partition_end_as_unknown_and_soon():
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        for relay in relays.values():
            relay.cut()
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(PeerUnreachable) as caught:
            await one.links.request("n2", "propose", b"", timeout_s=30)
        assert caught.value.outcome == "unknown"
        assert loop.time() - started < 6.0  # three seconds without proof, not thirty
        assert two.served == []


async def test_a_deadline_that_ends_inside_a_partition_leaves_the_outcome_unknown():
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        for relay in relays.values():
            relay.cut()
        with pytest.raises(PeerUnreachable) as caught:
            await one.links.request("n2", "propose", b"", timeout_s=0.4)
        assert caught.value.outcome == "unknown"


async def test_hanging_dials_during_a_cut_stay_bounded():
    async with pair(relayed=True) as (one, two, relays):
        await both_up(one, two)
        for relay in relays.values():
            relay.cut()
        await wait_s(4.0)
        assert len(one.links._links["n2"]._attempts) <= 16
        for relay in relays.values():
            relay.heal()
        await asyncio.gather(flows(one, two, 10_000), flows(two, one, 20_000))
        await until(lambda: not one.links._links["n2"]._attempts, "the other attempts were given up")
        await until(lambda: two.links._gate.count("n1") == 1, "one link remains at the peer")
