"""What each toxic does to bytes, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from chaos.proxy.stages import STAGES, Stage
from chaos.proxy.toxic import ATTRIBUTES, BadRequest, parse_proxy, parse_toxic


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.live = when, callback, True

    def cancel(self) -> None:
        self.live = False


class Bench:
    """Timers, the outlet and the host in one."""

    def __init__(self, type: str, **attributes: int) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.out: list[tuple[float, bytes]] = []
        self.events: list[tuple[float, str]] = []
        self.thrown = 0
        self.toxic = parse_toxic({"type": type, "attributes": attributes})
        self.stage: Stage = STAGES[type](self.toxic, self, Random(5), self)
        self.stage.next = self

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def push(self, data: bytes) -> None:
        self.out.append((round(self.now, 6), data))

    def end(self) -> None:
        self.events.append((round(self.now, 6), "end"))

    def discarded(self, count: int) -> None:
        self.thrown += count

    def close_at_end(self) -> None:
        self.events.append((round(self.now, 6), "close-at-end"))

    def close(self) -> None:
        self.events.append((round(self.now, 6), "close"))

    def reset(self) -> None:
        self.events.append((round(self.now, 6), "reset"))

    def turn(self, until: float) -> None:
        while due := [timer for timer in self.timers if timer.live and timer.when <= until]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = first.when
            first.callback()
        self.now = until

    def bytes_out(self) -> bytes:
        return b"".join(data for _, data in self.out)


def test_latency_delays_each_piece_from_its_own_arrival() -> None:
    bench = Bench("latency", latency=100)
    bench.stage.push(b"1")
    bench.now = 0.05
    bench.stage.push(b"2")
    bench.stage.end()
    assert bench.stage.held == 2
    bench.turn(1)
    assert bench.out == [(0.1, b"1"), (0.15, b"2")]
    assert bench.events == [(0.15, "end")]
    assert bench.stage.held == 0


def test_jitter_never_reorders() -> None:
    bench = Bench("latency", latency=50, jitter=50)
    for number in range(50):
        bench.now = number / 1000
        bench.stage.push(bytes([number]))
    bench.turn(1)
    assert bench.bytes_out() == bytes(range(50))
    assert len({when for when, _ in bench.out}) > 10


def test_bandwidth_paces() -> None:
    bench = Bench("bandwidth", rate=10)
    bench.stage.push(bytes(1000))
    bench.turn(0.05)
    assert len(bench.bytes_out()) == 400
    bench.turn(1)
    assert len(bench.bytes_out()) == 1000
    assert bench.out[-1][0] == pytest.approx(0.1)


def test_a_bandwidth_of_nothing_holds_until_it_is_raised() -> None:
    bench = Bench("bandwidth", rate=0)
    bench.stage.push(b"x" * 10)
    bench.turn(100)
    assert bench.out == []
    bench.toxic.attributes = {"rate": 1}
    bench.stage.update()
    bench.turn(101)
    assert len(bench.bytes_out()) == 10


def test_slicer_cuts_into_pieces_with_pauses() -> None:
    bench = Bench("slicer", average_size=10, size_variation=3, delay=1000)
    data = bytes(range(100))
    bench.stage.push(data)
    bench.turn(1)
    assert bench.bytes_out() == data
    assert all(7 <= len(piece) <= 13 for _, piece in bench.out[:-1])
    assert bench.out[1][0] == pytest.approx(0.001)


def test_slow_close_delays_only_the_end() -> None:
    bench = Bench("slow_close", delay=500)
    bench.stage.push(b"now")
    bench.stage.end()
    bench.turn(1)
    assert bench.out == [(0.0, b"now")]
    assert bench.events == [(0.5, "end")]


def test_timeout_closes_after_its_time_and_zero_never_does() -> None:
    for wait, events in ((200, [(0.2, "close")]), (0, [])):
        bench = Bench("timeout", timeout=wait)
        bench.turn(1000)
        assert bench.events == events
    bench.stage.release()
    assert bench.events == [(1000, "close")]


def test_reset_peer_waits_for_a_byte() -> None:
    bench = Bench("reset_peer", timeout=50)
    bench.turn(1)
    assert bench.events == []
    bench.stage.push(b"hello")
    bench.turn(2)
    assert bench.events == [(1.05, "reset")]
    assert (bench.out, bench.thrown) == ([], 5)


def test_limit_data_counts_over_pieces() -> None:
    bench = Bench("limit_data", bytes=5)
    bench.stage.push(b"123")
    bench.stage.push(b"456")
    bench.stage.push(b"789")
    assert bench.bytes_out() == b"12345"
    assert bench.events == [(0.0, "close-at-end"), (0.0, "end")]
    assert bench.thrown == 4


def test_hold_gives_everything_back_in_order_with_its_end() -> None:
    bench = Bench("hold")
    bench.stage.push(b"a")
    bench.stage.push(b"b")
    bench.stage.end()
    bench.turn(10_000)
    assert bench.out == []
    bench.stage.release()
    assert bench.bytes_out() == b"ab"
    assert bench.events == [(10_000, "end")]


@pytest.mark.parametrize("type", sorted(set(ATTRIBUTES) - {"timeout", "limit_data", "reset_peer"}))
def test_a_silenced_or_closed_stage_forgets_what_it_holds_and_rings_no_timer(type: str) -> None:
    bench = Bench(type, **({"average_size": 1, "delay": 1000} if type == "slicer" else {}))
    bench.stage.push(b"12345")
    held = bench.stage.held
    assert bench.stage.drop() == held
    bench.stage.close()
    bench.turn(1000)
    assert len(bench.bytes_out()) == 5 - held
    assert bench.stage.held == 0


def test_the_same_seed_makes_the_same_jitter() -> None:
    def times(seed: int) -> list[float]:
        bench = Bench("latency", latency=50, jitter=50)
        bench.stage.dice = Random(seed)
        for number in range(20):
            bench.stage.push(bytes([number]))
        bench.turn(1)
        return [when for when, _ in bench.out]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_whole_floats_are_numbers_and_other_things_are_not() -> None:
    assert parse_toxic({"type": "latency", "attributes": {"latency": 5.0}}).attributes["latency"] == 5
    for value in (5.5, "5", None, [5]):
        with pytest.raises(BadRequest):
            parse_toxic({"type": "latency", "attributes": {"latency": value}})


def test_names_that_would_break_a_url_or_a_file_are_refused() -> None:
    for name in ("a/b", "a\nb", "x" * 200, 5):
        with pytest.raises(BadRequest):
            parse_proxy({"name": name, "upstream": "a:1"})
