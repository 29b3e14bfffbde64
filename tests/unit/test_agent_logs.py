"""Workload output by cursor: any way of reading in pieces gives the same lines."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.log_files import LogFiles
from agents.logs import LINE_BYTES_MAX, Cursor, Logs, Place, cursor_from, cursor_text, split_lines
from scheduler.session import LogsRequest

ALLOCATION = "default/web.0"


class Node:
    """An agent directory with output files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.live: tuple[int, ...] = ()
        self.logs = Logs(LogFiles(directory).read, lambda allocation: self.live)

    def file(self, stream: str = "stdout", epoch: int = 5) -> Path:
        path = self.directory / "allocations" / f"default_web.0@{epoch}" / stream
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, data: bytes, stream: str = "stdout", epoch: int = 5) -> None:
        with self.file(stream, epoch).open("ab") as out:
            out.write(data)

    def read(self, cursor: str = "", lines_max: int = 100, wait_ms: int = 0):
        return asyncio.run(self.logs.answer(LogsRequest(1, ALLOCATION, cursor, lines_max, wait_ms)))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def texts(reply) -> list[str]:
    return [line.text for line in reply.lines]


def test_lines_of_an_ended_attempt_come_once_and_then_it_is_ended(node):
    node.write(b"one\ntwo\nlast without newline")
    reply = node.read(lines_max=2)
    assert (texts(reply), reply.ended, reply.error) == (["one", "two"], False, "")
    rest = node.read(reply.cursor)
    assert (texts(rest), rest.ended) == (["last without newline"], True)
    assert texts(node.read(rest.cursor)) == []


def test_a_partial_line_waits_for_its_end_while_the_workload_lives(node):
    node.live = (5,)
    node.write(b"done\nhalf a l")
    reply = node.read()
    assert (texts(reply), reply.ended) == (["done"], False)
    assert texts(node.read(reply.cursor)) == []
    node.write(b"ine\n")
    assert texts(node.read(reply.cursor)) == ["half a line"]


def test_both_streams_get_their_share_of_a_small_answer(node):
    node.write(b"o\n" * 50)
    node.write(b"e\n" * 50, "stderr")
    reply = node.read(lines_max=10)
    assert [line.stream for line in reply.lines] == ["stdout"] * 5 + ["stderr"] * 5
    count = len(reply.lines)
    while not reply.ended:
        reply = node.read(reply.cursor, lines_max=10)
        count += len(reply.lines)
    assert count == 100


def test_a_file_cut_short_or_replaced_is_read_from_its_beginning(node):
    node.live = (5,)
    node.write(b"old line\n" * 3)
    reply = node.read()
    os.truncate(node.file(), 0)
    node.write(b"new\n")
    after_cut = node.read(reply.cursor)
    assert texts(after_cut) == ["new"]
    replacement = node.file().with_name("aside")
    replacement.write_bytes(b"other file, longer than the first\n")
    replacement.rename(node.file())
    assert texts(node.read(after_cut.cursor)) == ["other file, longer than the first"]


def test_what_was_punched_out_is_skipped_up_to_the_next_whole_line(node):
    block = 4096
    node.live = (5,)
    path = node.file()
    with path.open("wb") as out:
        out.seek(4 * block)
        out.write(b"tail of a cut line\nwhole\n")
    if path.stat().st_blocks * 512 >= 4 * block:
        pytest.skip("this file system has no holes")
    reply = node.read()
    assert texts(reply) == ["whole"]
    node.write(b"more\n")
    assert texts(node.read(reply.cursor)) == ["more"]


def test_a_newer_attempt_follows_the_exhausted_one_and_reading_begins_with_the_newest(node):
    node.write(b"first life\n", epoch=5)
    cursor = node.read().cursor
    node.write(b"second life\n", epoch=9)
    node.live = (9,)
    follow = node.read(cursor)
    assert (texts(follow), follow.ended) == (["second life"], False)
    assert texts(node.read()) == ["second life"]


def test_following_returns_as_soon_as_something_is_written(node):
    node.live = (5,)
    node.write(b"")

    async def follow():
        request = LogsRequest(1, ALLOCATION, "", 10, 20_000)
        waiting = asyncio.ensure_future(node.logs.answer(request))
        node.write(b"here\n")
        return await asyncio.wait_for(waiting, 10)

    assert texts(asyncio.run(follow())) == ["here"]


def test_following_ends_when_the_workload_has_ended(node):
    node.live = (5,)
    node.write(b"")
    asked = []

    def live(_: str) -> tuple[int, ...]:
        asked.append(1)
        return (5,) if len(asked) < 3 else ()

    logs = Logs(LogFiles(node.directory).read, live)
    reply = asyncio.run(asyncio.wait_for(logs.answer(LogsRequest(1, ALLOCATION, "", 10, 20_000)), 10))
    assert (reply.lines, reply.ended) == ((), True)


@pytest.mark.parametrize(
    ("allocation", "cursor", "error"),
    [
        ("../../etc/passwd", "", "bad-allocation"),
        ("default/web", "", "bad-allocation"),
        (ALLOCATION, "nonsense", "bad-cursor"),
        (ALLOCATION, "1.2.3.4.5.6", "bad-cursor"),
        (ALLOCATION, "", "no-logs"),
    ],
)
def test_a_bad_request_is_answered_with_its_code(node, allocation, cursor, error):
    reply = asyncio.run(node.logs.answer(LogsRequest(7, allocation, cursor, 10, 0)))
    assert (reply.id, reply.error, reply.ended) == (7, error, True)


def test_what_is_not_a_regular_file_is_not_read(node):
    node.file().symlink_to("/etc/hostname")
    os.mkfifo(node.file("stderr"))
    reply = node.read()
    assert (reply.lines, reply.ended) == ((), True)


def test_bytes_that_are_no_text_are_replaced_and_never_fail(node):
    node.write(b"\xff\xfe ok\r\n")
    assert texts(node.read()) == ["\ufffd\ufffd ok"]


def test_a_line_without_end_comes_in_pieces_cut_between_characters(node):
    node.live = (5,)
    node.write("ä".encode() * LINE_BYTES_MAX)
    reply = node.read()
    assert "".join(texts(reply)) == "ä" * (len("".join(texts(reply))))
    assert all(len(text.encode()) <= LINE_BYTES_MAX for text in texts(reply))


@given(st.integers(0, 10**18), *([st.integers(0, 10**18)] * 4))
def test_a_cursor_survives_its_text(epoch, a, b, c, d):
    cursor = Cursor(epoch, (Place(a, b), Place(c, d)))
    assert cursor_from(cursor_text(cursor)) == cursor


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 7), max_size=60), st.integers(1, 5))
def test_reading_in_any_pieces_gives_the_same_lines_as_reading_at_once(data, sizes, lines_max):
    whole, taken = split_lines(data, final=True, lines_max=10_000)
    assert taken == len(data)
    got: list[str] = []
    at, seen = 0, 0
    for size in sizes:
        seen = min(len(data), seen + size)
        lines, used = split_lines(data[at:seen], final=False, lines_max=lines_max)
        got.extend(lines)
        at += used
    while at < len(data):
        lines, used = split_lines(data[at:], final=True, lines_max=lines_max)
        got.extend(lines)
        at += used
    assert got == whole
