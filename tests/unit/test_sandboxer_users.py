"""Which users workloads are outside: ranges, claims between nodes of a machine, numbers of one node."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.sandboxer import users
from agents.sandboxer.launcher import Launcher
from agents.sandboxer.output import Outputs
from agents.sandboxer.users import BLOCK, NoUsers, Users, claim, parse_range

FIRST = 1 << 30


def only(blocks: int) -> range:
    return range(FIRST, FIRST + blocks * BLOCK)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("", 0x7000_0000, 0x7FFD_FFFF),
        ("100000:65536", 106_496, 163_839),
        ("8192:8192", 8192, 16_383),
        ("4294950912:8192", 4_294_950_912, 4_294_959_103),
    ],
)
def test_a_range_is_cut_to_whole_blocks(text: str, first: int, last: int) -> None:
    numbers = parse_range(text)
    assert (numbers.start, numbers.stop - 1) == (first, last)
    assert numbers.start % BLOCK == len(numbers) % BLOCK == 0


@pytest.mark.parametrize("text", ["x", "1:", "100000:8192", "0:8192", "8192:8191", "4294959104:8192", "99999999999:1"])
def test_a_range_without_a_block_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(NoUsers, match=text):
        parse_range(text)


def test_nodes_of_one_machine_never_have_the_same_block(tmp_path: Path) -> None:
    directory = str(tmp_path / "a/claims")
    claimed = [claim(only(3), f"node {number}", directory) for number in range(3)]
    assert sorted(item.first for item in claimed) == [FIRST, FIRST + BLOCK, FIRST + 2 * BLOCK]
    with pytest.raises(NoUsers, match="other nodes of this machine"):
        claim(only(3), "node 3", directory)
    claimed[1].close()
    assert claim(only(3), "node 3", directory).first == claimed[1].first


def test_a_block_stays_its_nodes_while_an_init_holds_the_claim(tmp_path: Path) -> None:
    directory = str(tmp_path / "claims")
    first = claim(only(2), "node", directory)
    of_an_init = os.dup(first.lock)  # what a forked init has
    os.close(first.lock)  # the sandboxer is killed
    assert claim(only(2), "other", directory).first != first.first
    second = claim(only(2), "node", directory)
    assert second.first == first.first
    block = range(first.first, first.first + BLOCK)
    of_another = os.dup(second.lock)
    os.close(of_an_init)
    os.close(second.lock)  # killed as well
    with pytest.raises(NoUsers):
        claim(block, "third", directory)
    claim(block, "node", directory).close()  # ended in order, which does not give back what another still has
    with pytest.raises(NoUsers):
        claim(block, "third", directory)
    os.close(of_another)  # and with the last of them it is free
    assert claim(block, "third", directory).first == first.first


def test_a_claim_that_was_given_back_meanwhile_is_not_mistaken_for_one_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tmp_path / "claims")
    before = claim(only(1), "before", directory)
    really = users.fcntl.flock
    asked: list[int] = []

    def flock(fd: int, kind: int) -> None:
        asked.append(fd)
        if len(asked) == 1:
            monkeypatch.setattr(users.fcntl, "flock", really)
            before.close()  # between our opening of the file and our lock on it
        really(fd, kind)

    monkeypatch.setattr(users.fcntl, "flock", flock)
    mine = claim(only(1), "mine", directory)
    with pytest.raises(NoUsers):
        claim(only(1), "third", directory)
    assert os.stat(f"{directory}/{FIRST // BLOCK}").st_ino == os.fstat(mine.lock).st_ino


def test_a_number_is_not_given_again_while_its_workload_is_kept(tmp_path: Path) -> None:
    node = Users(FIRST, -1, str(tmp_path / "none"))
    node.adopt("kept", FIRST + 7)
    given = [node.take(f"w{number}") for number in range(BLOCK - 1)]
    assert len({*given, FIRST + 7}) == BLOCK
    with pytest.raises(NoUsers, match="in use"):
        node.take("one too many")
    node.free("kept")
    node.free("unknown")
    assert node.take("next") == FIRST + 7


def test_an_ended_attempts_user_is_taken_until_its_output_is_discarded(tmp_path: Path) -> None:
    me = os.getuid() or FIRST + 7
    outputs = Outputs(str(tmp_path / "allocations"), 1 << 20)
    for fd in outputs.open("old@1", me if os.getuid() == 0 else 0):
        os.close(fd)
    node = Users(me - 7, -1, str(tmp_path / "none"))
    nothing: Any = SimpleNamespace(boot_id=lambda: "boot")
    launcher = Launcher(nothing, outputs, nothing, nothing, nothing, {}, node)
    assert me not in {node.take(f"w{number}") for number in range(BLOCK - 1)}
    launcher.discard("old@1")
    assert not os.path.exists(outputs.path("old@1"))
    assert node.take("next") == me


def test_numbers_go_round_the_block_before_one_is_used_again(tmp_path: Path) -> None:
    node = Users(FIRST, -1, str(tmp_path / "none"))
    given = []
    for _ in range(BLOCK):
        given.append(node.take("w"))
        node.free("w")
    assert len(set(given)) == BLOCK
