"""The ring of changes that event streams follow."""

from __future__ import annotations

import asyncio

from scheduler.changelog import Changelog


def filled(indexes: range, changes_max: int = 100) -> Changelog:
    changelog = Changelog(changes_max=changes_max)
    for index in indexes:
        changelog.add(index, [("job", {"index": index})])
    return changelog


def test_a_follower_goes_on_where_it_was() -> None:
    changelog = filled(range(1, 11))
    assert [index for index, _ in changelog.after(7, 100)] == [8, 9, 10]
    assert changelog.after(10, 100) == []


def test_the_limit_never_splits_an_index() -> None:
    changelog = Changelog()
    changelog.add(1, [("place", {"n": i}) for i in range(5)])
    changelog.add(2, [("place", {"n": i}) for i in range(5)])
    assert [index for index, _ in changelog.after(0, 3)] == [1] * 5


def test_old_indexes_are_forgotten_and_that_is_known() -> None:
    changelog = filled(range(1, 51), changes_max=10)
    assert changelog.forgotten_index == 40
    assert [index for index, _ in changelog.after(0, 100)] == list(range(41, 51))


def test_entries_without_changes_move_the_position_only() -> None:
    changelog = Changelog()
    changelog.add(3, ())
    assert changelog.last_index == 3
    assert changelog.after(0, 10) == []


async def test_a_waiting_follower_is_woken() -> None:
    changelog = filled(range(1, 3))
    waiting = asyncio.ensure_future(changelog.wait(2, 5))
    await asyncio.sleep(0)
    changelog.add(3, [("job", {})])
    changelog.wake()
    assert await waiting
    assert not await changelog.wait(3, 0.01)
