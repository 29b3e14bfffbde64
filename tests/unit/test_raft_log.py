from __future__ import annotations

import pytest

from raft.log import ENTRY_OVERHEAD_BYTES, HASH_START, Log, next_hash
from raft.messages import COMMAND, NOOP, Base, Entry


def _entries(*terms: int, first: int = 1, data: bytes = b"x") -> list[Entry]:
    return [Entry(term, index, COMMAND, data) for index, term in enumerate(terms, first)]


def test_an_empty_log_ends_at_index_0_and_term_0() -> None:
    log = Log()
    assert (log.first_index, log.last_index, log.last_term, log.size_bytes) == (1, 0, 0, 0)
    assert log.matches(0, 0)
    assert not log.matches(1, 0)


def test_extending_and_truncating_keep_terms_sizes_and_hashes_in_step() -> None:
    log = Log(_entries(1, 1, 2, 2, 3))
    kept = log.hash_at(3)
    log.truncate(4)
    assert (log.last_index, log.last_term, log.hash_at(3)) == (3, 2, kept)
    log.extend(_entries(4, 4, first=4))
    assert [log.term_at(index) for index in range(7)] == [0, 1, 1, 2, 4, 4, 0]
    assert log.size_bytes == 5 * (1 + ENTRY_OVERHEAD_BYTES)
    assert log.hash_at(5) == Log(_entries(1, 1, 2, 4, 4)).hash_at(5)


def test_the_hash_written_out_in_extend_is_next_hash() -> None:
    entries = [Entry(3, index, index % 3, bytes([index]) * index) for index in range(1, 20)]
    log, rolling = Log(entries), HASH_START
    for entry in entries:
        rolling = next_hash(rolling, entry)
        assert log.hash_at(entry.index) == rolling


@pytest.mark.parametrize(
    "other",
    [
        [Entry(1, 1, NOOP, b""), Entry(2, 2, COMMAND, b"b")],
        [Entry(2, 1, COMMAND, b""), Entry(2, 2, COMMAND, b"b")],
        [Entry(1, 1, COMMAND, b"\0"), Entry(2, 2, COMMAND, b"b")],
        [Entry(1, 1, COMMAND, b""), Entry(2, 2, COMMAND, b"c")],
        [Entry(1, 1, COMMAND, b""), Entry(3, 2, COMMAND, b"b")],
    ],
)
def test_any_difference_in_the_prefix_changes_the_hash(other: list[Entry]) -> None:
    mine = Log([Entry(1, 1, COMMAND, b""), Entry(2, 2, COMMAND, b"b")])
    assert Log(other).hash_at(2) != mine.hash_at(2)


def test_an_entry_that_does_not_follow_the_end_is_refused() -> None:
    with pytest.raises(AssertionError, match="follow"):
        Log(_entries(1)).extend(_entries(1, first=3))


@pytest.mark.parametrize(
    ("bytes_max", "after", "last"),
    [(1, 0, 1), (110, 0, 1), (111, 0, 1), (250, 0, 2), (1 << 20, 0, 5), (250, 3, 5), (1, 5, 5), (249, 1, 3)],
)
def test_a_message_takes_what_fits_and_at_least_one_entry(bytes_max: int, after: int, last: int) -> None:
    log = Log(_entries(1, 1, 1, 1, 1, data=b"x" * 100))  # 124 bytes each
    assert log.fitting(after, bytes_max) == last


def test_runs_of_terms_are_found_by_bisection() -> None:
    terms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    log = Log(_entries(*terms))
    for index, term in enumerate(terms, 1):
        assert log.first_index_of_term(index) == terms.index(term) + 1
    for term in range(8):
        for upto in range(13):
            found = [index for index, each in enumerate(terms, 1) if each == term and index <= upto]
            assert log.last_index_of_term(term, upto) == (found[-1] if found else 0), (term, upto)


def test_a_log_can_start_behind_a_base() -> None:
    log = Log(_entries(5, 6, first=11), Base(10, 4, 77))
    assert (log.first_index, log.last_index, log.term_at(10), log.term_at(9)) == (11, 12, 4, 0)
    assert log.matches(10, 4)
    assert not log.matches(9, 0)
    assert [entry.index for entry in log.slice(11, 12)] == [11, 12]
    assert log.slice(13, 12) == ()


def test_marks_name_every_index_of_a_short_range_and_every_64th_of_a_long_one() -> None:
    log = Log(_entries(*[1] * 300))
    assert [index for index, _ in log.marks(3, 10)] == list(range(3, 11))
    assert [index for index, _ in log.marks(3, 200)] == [64, 128, 192, 200]
    assert [index for index, _ in log.marks(64, 128)] == [64, 128]
    assert log.marks(5, 5) == ((5, log.hash_at(5)),)
