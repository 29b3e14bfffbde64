"""From committed entries to state, trace and changelog."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from raft.messages import COMMAND, CONFIGURATION, NOOP, Entry
from scheduler.changelog import Changelog
from scheduler.commands import RegisterNode, SetNodeState, SubmitJob, encode
from scheduler.errors import CommandTooNew
from scheduler.jobfile import resolve_object
from scheduler.machine import Machine
from scheduler.model import Capacity
from scheduler.outcomes import decode_result, encode_result
from scheduler.state import State

REGISTER = encode(RegisterNode("a1", "i1", "b1", Capacity(1000, 1 << 30, 1000), "none", "", "127.0.0.1", 1))
CORDON = encode(SetNodeState("a1", "cordoned", 2))
SUBMIT = encode(SubmitJob(resolve_object({"name": "web", "command": ["/bin/true"]}), "r-1", -1, 3))


class Seen:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, kind: str, /, **fields: Any) -> None:
        self.events.append((kind, fields))


def machine(state: State | None = None) -> tuple[Machine, Seen]:
    seen = Seen()
    return Machine(state or State(), observer=seen, changelog=Changelog(), log=structlog.get_logger()), seen


def entries(*datas: bytes | None) -> list[Entry]:
    return [Entry(1, i, COMMAND if data is not None else NOOP, data or b"") for i, data in enumerate(datas, 1)]


def test_each_entry_has_one_result_and_its_changes_are_traced_and_logged() -> None:
    made, seen = machine()
    woken: list[int] = []
    made.on_applied.append(woken.append)
    results = made.apply([*entries(None, REGISTER, SUBMIT), Entry(1, 4, CONFIGURATION, b"x")])
    assert [result is None for result in results] == [True, False, False, True]
    assert [kind for kind, _ in seen.events] == ["node", "job"]
    assert made.changelog.after(0, 10)[0] == (2, seen.events[0])
    assert (made.state.index, made.changelog.last_index, woken) == (4, 4, [4])


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01\x92\x63\x00", b"x" * 1000])
def test_data_that_is_no_command_is_refused_alike_everywhere_and_the_next_applied(data: bytes) -> None:
    digests = []
    for _ in range(2):
        made, _ = machine()
        results = made.apply(entries(REGISTER, data, CORDON))
        assert results[1] is not None
        assert results[1].code == "bad-command"
        assert results[2] is not None
        assert results[2].ok
        digests.append(made.state.digest())
    assert digests[0] == digests[1]


def test_a_command_that_trips_over_the_state_ends_the_machine_with_the_trace() -> None:
    """What it changed half must neither be served nor frozen."""

    class Tripping(State):
        def apply(self, index: int, term: int, data: bytes) -> Any:
            if data == CORDON:
                raise ZeroDivisionError("bug")
            return super().apply(index, term, data)

    made, seen = machine(Tripping())
    with pytest.raises(ZeroDivisionError):
        made.apply(entries(REGISTER, CORDON, SUBMIT))
    assert made.state.index == 1
    assert ("inv", False) in [(kind, fields.get("ok")) for kind, fields in seen.events]


def test_a_command_of_a_newer_version_stops_the_machine() -> None:
    made, _ = machine()
    with pytest.raises(CommandTooNew):
        made.apply(entries(b"\x92\xcd\x03\xe7\x90"))


def test_a_restored_machine_goes_on_and_its_followers_are_told_of_the_gap() -> None:
    made, _ = machine()
    made.apply(entries(None, REGISTER, SUBMIT))
    frozen = made.freeze()
    chunks = list(frozen.chunks())
    frozen.release()
    again, seen = machine()
    woken: list[int] = []
    again.on_applied.append(woken.append)
    again.restore(3, 1, chunks)
    assert (again.state.digest(), woken, seen.events) == (made.state.digest(), [3], [])
    assert (again.changelog.last_index, again.changelog.forgotten_index) == (3, 3)
    assert again.state.changed_nodes(0) == ["a1"], "every session looks again at what its node shall run"
    assert again.apply([Entry(1, 4, COMMAND, CORDON)])[0] == made.apply([Entry(1, 4, COMMAND, CORDON)])[0]
    assert again.changelog.after(3, 10)[0][0] == 4


def test_a_machine_refuses_what_is_no_state_and_stays_as_it_was() -> None:
    made, _ = machine()
    made.apply(entries(REGISTER))
    before = made.state.digest()
    with pytest.raises(ValueError, match=r"no state|cut short|too long"):
        made.restore(9, 1, [b"rubbish" * 100])
    assert (made.state.digest(), made.changelog.last_index) == (before, 1)


def test_results_cross_a_link_without_their_changes() -> None:
    made, _ = machine()
    for result in made.apply(entries(REGISTER, SUBMIT, CORDON, b"garbage")):
        assert result is not None
        again = decode_result(encode_result(result))
        assert type(again) is type(result)
        assert (again.index, again.code, again.changes) == (result.index, result.code, ())
