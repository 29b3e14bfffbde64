"""The trace of one process: its fields, clocks, files, and what a broken disk does to it."""

from __future__ import annotations

import json
import os
import time

import pytest
from structlog.testing import capture_logs

from cluster import trace_writer
from cluster.dice import SeededDice
from cluster.trace import new_incarnation
from cluster.trace_writer import file_tracer


class Clock:
    def __init__(self) -> None:
        self.wall = 1_790_000_000_123_456_789

    def now_ns(self) -> int:
        return 0

    def wall_ns(self) -> int:
        return self.wall


@pytest.fixture
def clock():
    return Clock()


def lines(directory):
    names = sorted(path.name for path in directory.iterdir())
    return [json.loads(line) for name in names for line in (directory / name).read_text().splitlines()]


def test_a_line_has_the_common_fields_and_the_events_own(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="0a0b0c0d", meta={"seed": 7})
    assert tracer.emit("role", role="leader", term=3) == "n1/0a0b0c0d/1"
    tracer.emit("note", text="x")
    tracer.close()
    meta, role, note = lines(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["n1-0a0b0c0d.jsonl"]
    assert (meta["k"], meta["version"], meta["seed"]) == ("meta", 1, 7)
    assert role == {
        "i": 1, "t": 1790000000.123457, "n": "n1", "inc": "0a0b0c0d", "lc": 1,
        "hlc": (1_790_000_000_123 << 16) + 0, "k": "role", "role": "leader", "term": 3,
    }  # fmt: skip
    assert (note["i"], note["lc"], note["hlc"]) == (2, 2, role["hlc"] + 1)


def test_the_hybrid_clock_never_goes_back_and_passes_what_it_received(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
    tracer.emit("note")
    clock.wall -= 5_000_000_000
    tracer.emit("note")
    tracer.observe(100, tracer.clocks()[1] + 1000)
    tracer.emit("recv")
    clock.wall += 60_000_000_000
    tracer.emit("note")
    tracer.close()
    events = lines(tmp_path)[1:]
    clocks = [event["hlc"] for event in events]
    assert clocks == sorted(set(clocks))
    assert clocks[2] == clocks[1] + 1001
    assert events[2]["lc"] == 101
    assert clocks[3] == (clock.wall // 1_000_000) << 16


def test_message_ids_are_unique_and_their_clocks_lie_below_the_send_event(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
    first, lc, hlc = tracer.stamp_send()
    assert tracer.message_id(tracer.stamp_number()) != first
    tracer.emit("send", m=first)
    tracer.close()
    send = lines(tmp_path)[1]
    assert first == "n1/00000000/1"
    assert lc < send["lc"]
    assert hlc < send["hlc"]


def test_without_a_directory_nothing_is_written_and_ids_still_grow(clock):
    tracer = file_tracer("n1", None, clock, incarnation="00000000")
    assert tracer.emit("note") == ""
    assert tracer.stamp_number() < tracer.stamp_number()
    assert tracer.flush()
    tracer.close()


def test_flush_hands_everything_to_the_kernel(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
    for number in range(2000):
        tracer.emit("note", number=number)
    assert tracer.flush()
    assert len(lines(tmp_path)) == 2001
    tracer.close()


def test_files_roll_by_size_and_each_opens_with_meta(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000", roll_bytes=4096)
    for number in range(200):
        tracer.emit("note", number=number)
        if number % 20 == 0:
            tracer.flush()
    tracer.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    assert all(json.loads(path.read_text().splitlines()[0])["k"] == "meta" for path in files)
    numbers = sorted(event["number"] for event in lines(tmp_path) if event["k"] == "note")
    assert numbers == list(range(200))


def test_an_odd_field_never_loses_the_event(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
    tracer.emit("note", path=tmp_path, odd=object(), keys={(1, 2): 3}, huge=1 << 200)
    tracer.emit("note", token="secret-token", text="fine")
    tracer.close()
    first, second = lines(tmp_path)[1:]
    assert first["k"] == "note"
    assert second["token"] == "***"
    assert "secret-token" not in (tmp_path / "n1-00000000.jsonl").read_text()


def test_a_full_buffer_drops_counts_and_says_so(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(trace_writer, "BUFFER_EVENTS_MAX", 100)
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
    for _ in range(30_000):
        tracer.emit("note")  # far faster than the writer, which looks every 50 ms
    lost = tracer.dropped
    assert lost > 0
    tracer.flush()
    tracer.emit("note", text="after")
    tracer.close()
    events = lines(tmp_path)
    assert sum(event.get("dropped", 0) for event in events) == lost
    assert events[-1]["text"] == "after"
    assert len([e for e in events if e["k"] == "note" and "dropped" not in e]) == 30_001 - lost


def test_a_full_disk_neither_stops_nor_tears_the_trace_and_is_logged_once(tmp_path, clock, monkeypatch):
    room = {"bytes": 3000}
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if room["bytes"] <= 0:
            raise OSError(28, "No space left on device")
        taken = real(fd, data[: room["bytes"]])
        room["bytes"] -= taken
        return taken

    monkeypatch.setattr(trace_writer.os, "write", write)
    with capture_logs() as logs:
        tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
        for number in range(100):
            tracer.emit("note", number=number)
            tracer.flush()
        lost = tracer.dropped
        assert 0 < lost < 100
        room["bytes"] = 1 << 30
        tracer.emit("note", number=100)
        tracer.flush()
        tracer.emit("note", number=101)
        tracer.close()
    assert len([line for line in logs if "dropped" in line["event"]]) == 1
    events = lines(tmp_path)  # every line is whole
    assert events[-1]["number"] == 101
    assert sum(event.get("dropped", 0) for event in events) == lost


def test_a_directory_that_cannot_be_made_does_not_stop_the_process(tmp_path, clock):
    (tmp_path / "file").write_text("")
    with capture_logs() as logs:
        tracer = file_tracer("n1", tmp_path / "file" / "trace", clock, incarnation="00000000")
        tracer.emit("note")
        tracer.flush()
        tracer.close()
    assert tracer.dropped == 1
    assert len(logs) == 1


def test_an_event_costs_the_caller_at_most_five_microseconds(tmp_path, clock):
    tracer = file_tracer("n1", tmp_path, clock, incarnation="00000000")
    best_s = 1.0
    for _ in range(20):
        started = time.perf_counter()
        for number in range(1000):
            tracer.emit("send", m="n1/0/1", to="n2", type="append", bytes=512, term=3, index=number)
        best_s = min(best_s, (time.perf_counter() - started) / 1000)
        tracer.flush()
    tracer.close()
    assert best_s < 5e-6


def test_incarnations_are_eight_hex_digits_of_the_dice():
    assert new_incarnation(SeededDice(1)) == new_incarnation(SeededDice(1))
    assert len(new_incarnation(SeededDice(2))) == 8
