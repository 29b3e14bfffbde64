"""The simulated network behaves as TCP does under cuts, loss, crashes, power losses and pauses, for both kinds."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from sim_pair import KINDS, MS, PORT, Pair

from chaos.sim.host import ProcessHost
from chaos.sim.links import CUT, Impairment
from chaos.sim.messages import dial
from chaos.sim.world import World

LATENCY_MS = 1.0
"""More than any one way takes without faults."""


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> type[Pair]:
    return KINDS[request.param]


@pytest.mark.parametrize("seed", range(12))
def test_everything_arrives_once_and_in_order_however_bad_the_links_are(kind: type[Pair], seed: int) -> None:
    dice = Random(seed)
    with World(seed, policy=dice.choice(("fifo", "random", "pct")), loss=dice.random() * 0.1) as world:
        pair = kind(world)
        pair.start()
        sent: dict[str, list[int]] = {"a": [], "b": []}
        for step in range(60):
            name = f"fault {step}"
            impairment = Impairment(
                cut=dice.random() < 0.2,
                loss=dice.random() * 0.4,
                delay_ns=dice.randrange(200 * MS),
                jitter_ns=dice.randrange(50 * MS),
                bytes_per_s=dice.choice((0, 0, 5_000)),
            )
            chosen = dice.sample(pair.pairs(), dice.randint(1, 2))
            world.network.impair(name, chosen, impairment, routes=dice.random() < 0.3)
            for side in ("a", "b"):
                numbers = [step * 10 + each for each in range(dice.randrange(4))]
                sent[side] += numbers
                pair.send(side, *numbers)
            world.run_for(dice.random() * 0.3)
            if dice.random() < 0.8:
                world.network.heal(name)
        world.network.heal_all()
        world.run_for(200)
        assert pair.b.numbers == sent["a"]
        assert pair.a.numbers == sent["b"]
        assert pair.a.end is pair.b.end is None


@pytest.mark.parametrize(("healed_ms", "arrives_ms"), [(100, 200), (250, 600), (601, 1400)])
def test_what_a_cut_loses_in_flight_comes_with_the_first_retransmission_after_the_heal(
    kind: type[Pair], healed_ms: int, arrives_ms: int
) -> None:
    with World(1) as world:
        pair = kind(world)
        pair.start()
        sent_ms = world.now_ns / MS
        pair.send("a", 1)
        world.run_for(0.000_1)  # less than any latency: it is in flight
        world.network.impair("cut", [("a", "b")], CUT)
        cut_ms = world.now_ns / MS
        pair.send("a", 2)
        world.run_for(healed_ms / 1000)
        assert pair.b.numbers == []
        world.network.heal("cut")
        world.run_for(3)
        assert pair.b.numbers == [1, 2]
        assert cut_ms + arrives_ms < pair.b.when(1) < cut_ms + arrives_ms + LATENCY_MS
        assert sent_ms < pair.b.when(1) <= pair.b.when(2)
        assert world.network.drops["cut"] > 0


def test_a_one_way_cut_leaves_the_other_way_open(kind: type[Pair]) -> None:
    with World(2) as world:
        pair = kind(world)
        pair.start()
        world.network.impair("cut", [("a", "b")], CUT)
        pair.send("a", 1)
        pair.send("b", 2)
        world.run_for(1)
        assert (pair.a.numbers, pair.b.numbers) == ([2], [])
        world.network.heal("cut")
        world.run_for(2)
        assert pair.b.numbers == [1]


def test_a_cut_route_silences_both_ways_of_what_one_side_dialled_and_nothing_else(kind: type[Pair]) -> None:
    with World(3) as world:
        ours, theirs = kind(world), kind(world)
        theirs.hosts = {"a": world.hosts["b"], "b": world.hosts["a"]}
        ours.start()
        theirs._dial = lambda host: _reversed(theirs, host)  # type: ignore[method-assign]
        theirs.start()
        world.network.impair("cut", [("a", "b")], CUT, routes=True)
        for pair in (ours, theirs):
            pair.send("a", 1)
            pair.send("b", 2)
        world.run_for(1)
        assert (ours.a.numbers, ours.b.numbers) == ([], [])
        assert (theirs.a.numbers, theirs.b.numbers) == ([2], [1])


async def _reversed(pair: Pair, host: ProcessHost) -> None:
    """The dialling side of a pair whose server is on the machine called a."""
    if hasattr(asyncio, "open_connection") and type(pair).__name__ == "StreamPair":
        await pair._talk(pair.a, *await asyncio.open_connection("a", PORT))  # type: ignore[attr-defined]
    else:
        await pair._talk(pair.a, await dial(pair.world.network, "a", PORT))  # type: ignore[attr-defined]


def test_a_killed_process_has_its_connection_closed_after_what_it_had_written(kind: type[Pair]) -> None:
    with World(4) as world:
        pair = kind(world)
        pair.start()
        pair.send("b", 1, 2)
        world.run_for(0.000_01)
        pair.processes["b"].crash()
        world.run_for(0.1)
        assert pair.a.numbers == [1, 2]
        assert pair.a.end == "eof"


def test_a_process_killed_with_something_unread_resets(kind: type[Pair]) -> None:
    with World(4) as world:
        pair = kind(world)
        pair.b.reads.clear()
        pair.start()
        pair.b.reads.clear()
        size = 40_000 if kind.__name__ == "StreamPair" else 1  # a StreamReader takes 128 KiB before it pauses
        pair.send("a", *range(size))
        world.run_for(1)
        pair.send("a", 1)
        world.run_for(1)
        pair.processes["b"].crash()
        world.run_for(0.1)
        assert pair.a.end == "ConnectionResetError"


def test_what_is_sent_to_a_dead_process_is_answered_with_a_reset(kind: type[Pair]) -> None:
    with World(5) as world:
        pair = kind(world)
        pair.start()
        world.network.impair("cut", [("b", "a")], CUT)  # its machine's word of the end is lost
        pair.processes["b"].crash()
        pair.serve()  # another process on the same port knows nothing of the connection
        world.network.heal("cut")
        pair.send("a", 1)
        world.run_for(0.01)
        assert pair.b.numbers == []
        assert pair.a.end == "ConnectionResetError"


def test_a_machine_without_power_is_silent_and_resets_when_it_is_back(kind: type[Pair]) -> None:
    with World(6) as world:
        pair = kind(world)
        pair.start()
        pair.host_b.power_off()
        pair.send("a", 1)
        world.run_for(30)
        assert pair.a.heard == [], "half open: nothing tells the dialer"
        assert world.network.drops["down"] > 0
        pair.host_b.power_on()
        world.run_for(30)
        assert pair.a.end == "ConnectionResetError"


def test_a_silent_connection_breaks_when_nothing_was_ever_acknowledged(kind: type[Pair]) -> None:
    with World(7) as world:
        pair = kind(world)
        pair.start()
        world.network.impair("cut", pair.pairs(), CUT)
        pair.send("a", 1)
        world.run_for(800)
        assert pair.a.heard == []
        world.run_for(200)
        assert pair.a.end == "TimeoutError"
        assert pair.b.heard == []


def test_the_network_can_reset_connections(kind: type[Pair]) -> None:
    with World(8) as world:
        pair = kind(world)
        pair.start()
        assert world.network.reset("b", "a") == 0, "b dialled nobody"
        assert world.network.reset("a", "b") == 1
        world.run_for(0.01)
        assert pair.a.end == pair.b.end == "ConnectionResetError"


def test_a_paused_machine_takes_what_arrived_when_it_goes_on_in_order(kind: type[Pair]) -> None:
    with World(9, policy="random") as world:
        pair = kind(world)
        pair.start()
        pair.host_b.pause()
        for number in range(20):
            pair.send("a", number)
            world.run_for(0.1)
        pair.processes["a"].crash()
        world.run_for(1)
        assert pair.b.heard == []
        pair.host_b.resume()
        world.run_for(0.1)
        assert pair.b.numbers == list(range(20))
        assert pair.b.end == "eof"


def test_a_throttled_link_takes_its_time(kind: type[Pair]) -> None:
    with World(10) as world:
        pair = kind(world)
        pair.start()
        world.network.impair("slow", [("a", "b")], Impairment(bytes_per_s=1_000))
        began_ms = world.now_ns / MS
        for number in range(20):
            pair.send("a", number)
            world.run_for(0.001)
        world.run_for(10)
        assert pair.b.numbers == list(range(20))
        assert pair.b.when(19) - began_ms > 20 * 8, "20 numbers of 8 bytes at a byte a millisecond"


def test_faults_that_overlap_end_each_alone(kind: type[Pair]) -> None:
    with World(11) as world:
        pair = kind(world)
        pair.start()
        world.network.impair("one", [("a", "b")], CUT)
        world.network.impair("two", pair.pairs(), CUT)
        world.network.heal("two")
        pair.send("b", 1)
        pair.send("a", 2)
        world.run_for(5)
        assert (pair.a.numbers, pair.b.numbers) == ([1], [])
        world.network.heal("one")
        world.run_for(10)
        assert pair.b.numbers == [2]


# --- dialling ---------------------------------------------------------------------------------


def dialled(world: World, seconds: float, timeout_s: float | None = None) -> tuple[float, Any]:
    """Dial b from a; (milliseconds until it ended, error or the end); (−1, None) if it did not within `seconds`."""

    ended: list[tuple[float, Any]] = []

    async def dialler(host: ProcessHost) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await dial(world.network, "b", PORT)
        except OSError as error:
            outcome = error
        ended.append(((world.now_ns - began_ns) / MS, outcome))
        await asyncio.get_running_loop().create_future()

    began_ns = world.now_ns
    (world.hosts.get("a") or world.host("a")).spawn("dialler", dialler)
    world.run_for(seconds)
    return ended[0] if ended else (-1, None)


def test_nobody_listening_is_told_within_a_round_trip() -> None:
    with World(20) as world:
        world.host("b")
        took_ms, error = dialled(world, 1)
        assert isinstance(error, ConnectionRefusedError)
        assert 0 < took_ms < 2 * LATENCY_MS


def test_a_refusing_link_refuses_although_somebody_listens() -> None:
    with World(21) as world:
        KINDS["messages"](world).serve()
        world.network.impair("refuse", [("a", "b")], Impairment(refuse=True))
        assert isinstance(dialled(world, 1)[1], ConnectionRefusedError)
        world.network.heal_all()
        assert not isinstance(dialled(world, 1)[1], Exception)


@pytest.mark.parametrize("cut", [("a", "b"), ("b", "a")])
def test_a_lost_handshake_is_tried_again_after_one_two_and_four_seconds(cut: tuple[str, str]) -> None:
    with World(22) as world:
        KINDS["messages"](world).serve()
        world.network.impair("cut", [cut], CUT)
        world.loop.at(world.now_ns + 3_500 * MS, world.network.heal, "cut")
        took_ms, end = dialled(world, 10)
        assert not isinstance(end, Exception)
        assert 7_000 < took_ms < 7_000 + 3 * LATENCY_MS, "1 + 2 + 4 s, then it gets through"


def test_a_dial_ends_with_the_callers_patience_or_the_machines() -> None:
    with World(23) as world:
        world.host("b").power_off()
        took_ms, error = dialled(world, 10, timeout_s=2.5)
        assert isinstance(error, TimeoutError)
        assert took_ms == pytest.approx(2_500)
        took_ms, error = dialled(world, 200)
        assert isinstance(error, TimeoutError)
        assert took_ms == pytest.approx(127_000, abs=1_000)


def test_a_paused_machine_accepts_for_a_process_that_hears_later() -> None:
    with World(24) as world:
        pair = KINDS["messages"](world)
        pair.serve()
        pair.host_b.pause()
        took_ms, end = dialled(world, 1)
        assert took_ms < 3 * LATENCY_MS
        end.send(7, 8)
        world.run_for(1)
        assert pair.b.heard == []
        pair.host_b.resume()
        world.run_for(0.1)
        assert pair.b.numbers == [7]


def test_a_port_is_taken_once_and_free_again_after_its_process() -> None:
    async def second(host: ProcessHost) -> None:
        world.network.listen(PORT, lambda *_: None)

    with World(25) as world:
        pair = KINDS["messages"](world)
        pair.serve()
        clash = pair.host_b.spawn("second", second)
        world.run_for(0.1)
        assert isinstance(clash.exited.exception(), OSError)
        pair.processes["b"].crash()
        again = pair.host_b.spawn("second", second)
        world.run_for(0.1)
        assert again.exited.exception() is None


def test_a_writer_waits_while_nobody_reads_and_goes_on_when_somebody_does() -> None:
    async def server(host: ProcessHost) -> int:
        done = asyncio.get_running_loop().create_future()

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(5)
            done.set_result(len(await reader.read(-1)))
            writer.close()

        await asyncio.start_server(read, "b", PORT)
        return await done

    async def client(host: ProcessHost) -> float:
        _, writer = await asyncio.open_connection("b", PORT)
        for _ in range(50):
            writer.write(bytes(20_000))
            await writer.drain()
        written_s = asyncio.get_running_loop().time()
        writer.close()
        return written_s - began_s

    with World(26) as world:
        reads = world.host("b").spawn("server", server)
        world.run_for(0.001)
        began_s = world.host("a").clock.now_ns() / 1e9
        writes = world.hosts["a"].spawn("client", client)
        world.run_for(10)
        assert reads.exited.result() == 1_000_000
        assert 4.9 < writes.exited.result() < 5.5


def test_the_same_on_both_kinds_a_loopback_connection_knows_no_loss() -> None:
    with World(27, loss=0.9) as world:
        host = world.host("b")

        async def local(process: ProcessHost) -> list[Any]:
            end = await dial(world.network, "localhost", PORT)
            for number in range(20):
                end.send(number, 8)
            return list(range(20))

        pair = KINDS["messages"](world)
        pair.serve()
        host.spawn("local", local)
        world.run_for(0.1)
        assert pair.b.numbers == list(range(20))


@pytest.mark.parametrize("policy", ["fifo", "random", "pct"])
def test_what_a_protocol_started_runs_before_it_hears_of_the_end(policy: Any) -> None:
    """aiohttp's server relies on it, and in asyncio's own order it is so."""

    class Started(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.task = asyncio.ensure_future(self.start())

        async def start(self) -> None:
            heard.append("started")

        def connection_lost(self, error: Exception | None) -> None:
            heard.append(type(error).__name__)

    async def server(host: ProcessHost) -> None:
        await asyncio.get_running_loop().create_server(Started, "b", PORT)
        await asyncio.get_running_loop().create_future()

    async def client(host: ProcessHost) -> None:
        _, writer = await asyncio.open_connection("b", PORT)
        writer.transport.abort()
        await asyncio.get_running_loop().create_future()

    for seed in range(10):
        heard: list[str] = []
        with World(seed, policy=policy) as world:
            host = world.host("b")
            host.spawn("server", server)
            world.run_for(0.001)
            host.pause()
            world.host("a").spawn("client", client)
            world.run_for(0.1)
            host.resume()
            world.run_for(0.1)
        assert heard == ["started", "ConnectionResetError"]


def test_a_sender_of_messages_waits_while_much_is_unread() -> None:
    sent: list[int] = []

    async def client(host: ProcessHost) -> None:
        end = await dial(world.network, "b", PORT)
        for number in range(20):
            end.send(number, 100_000)
            await end.drain()
            sent.append(number)
        await asyncio.get_running_loop().create_future()

    with World(28) as world:
        pair = KINDS["messages"](world)
        pair.b.reads.clear()
        pair.serve()
        world.host("c").spawn("client", client)
        world.run_for(1)
        assert 1 <= len(sent) <= 3
        pair.b.reads.set()
        world.run_for(1)
        assert sent == list(range(20))
        assert pair.b.numbers == list(range(20))
