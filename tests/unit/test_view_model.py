from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_maker import good_run
from view_runs import START_MS

from chaos.trace.events import Event, Trace
from chaos.trace.explain import explain_trace
from chaos.view.bars import Bar, Timeline, absences, operations, roles, workloads
from chaos.view.columns import column
from chaos.view.faults import bands, toxics
from chaos.view.lanes import axis, lanes_of
from chaos.view.messages import DELIVERED, DROPPED, UNSEEN, class_of, messages_of
from chaos.view.model import page_data


class Made:
    """Events at given milliseconds, numbered as their lives would."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def at(self, ms: float, node: str, kind: str, /, inc: str = "1", **fields: Any) -> Event:
        number = 1 + sum(1 for event in self.events if (event.n, event.inc) == (node, inc))
        whole = START_MS + int(ms)
        event = Event(whole << 16, node, inc, number, START_MS / 1000 + ms / 1000, kind, fields, number)
        self.events.append(event)
        return event

    def trace(self) -> Trace:
        return Trace(self.events)

    def line(self) -> Timeline:
        trace = self.trace()
        return Timeline(trace, lanes_of(trace), axis(trace))


@pytest.fixture
def run(tmp_path: Path) -> Trace:
    return good_run().trace(tmp_path / "trace")


def _decoded(raw: dict[str, Any]) -> list[Any]:
    """What the page's script makes of a column."""
    if "d" in raw:
        found, total = [], 0
        for value in raw["d"]:
            total += value
            found.append(total)
        return found
    return [raw["v"][choice] for choice in raw["c"]] if "v" in raw else raw["r"]


def _words(bars: list[Bar]) -> list[tuple[str, str]]:
    return [(bar.what, bar.label) for bar in bars]


def test_lanes_are_replicas_then_agents_then_callers_then_proxies_in_natural_order():
    made = Made()
    for node in ("n10", "n2"):
        made.at(1, node, "role", role="follower", term=1)
    made.at(1, "a1", "run", do="start", allocation="default/x.0", epoch=1)
    made.at(1, "client", "op", ph="invoke", id="r")
    made.at(1, "proxy", "fault", id="f", kind="timeout", target="n2~n10", by={"proxy": "n2~n10"})
    made.at(1, "zz", "note", text="hello")
    assert [lane.name for lane in lanes_of(made.trace())] == ["n2", "n10", "a1", "client", "proxy", "zz"]


def test_a_replica_that_answers_writes_is_not_a_caller():
    made = Made()
    made.at(1, "n1", "role", role="leader", term=1)
    made.at(2, "n1", "op", ph="ok", id="r")
    assert [lane.kind for lane in lanes_of(made.trace())] == ["replica"]


def test_the_axis_never_shows_a_receipt_before_its_sending_though_the_clocks_differ():
    send = Event(5000 << 16, "n1", "1", 1, 5.0, "send", {"m": "1"})
    receipt = Event((5000 << 16) + 1, "n2", "1", 1, 3.2, "recv", {"m": "1"})  # its wall clock is slow
    assert axis(Trace([send, receipt])) == [0, 0]


def test_the_axis_takes_microseconds_from_the_wall_clock_where_it_agrees():
    first = Event(5000 << 16, "n1", "1", 1, 5.0001, "note", {})
    second = Event(5001 << 16, "n1", "1", 2, 5.001250, "note", {})
    assert axis(Trace([first, second])) == [100, 1250]


def test_time_never_runs_backwards_within_a_life_though_its_wall_clock_does():
    events = [Event((5000 << 16) + i, "n1", "1", i, 5.0 + us / 1e6, "note", {}) for i, us in enumerate((700, 200, 800))]
    assert axis(Trace(events)) == [700, 700, 800]


def test_a_send_meets_its_receipt_and_what_never_arrived_says_so():
    made = Made()
    made.at(1, "n1", "send", m="1", to="n2", type="append")
    made.at(2, "n2", "recv", m="1", fr="n1", type="append")
    made.at(3, "n1", "send", m="2", to="n2", type="vote-request")
    made.at(4, "n1", "drop", to="n2", type="append", why="down")
    made.at(5, "n1", "send", m="3", to="n2", type="append")
    made.at(5, "n1", "drop", m="3", to="n2", type="append", why="cut")
    trace = made.trace()
    found = messages_of(trace, lanes_of(trace))
    assert [(m.type, m.state) for m in found] == [
        ("append", DELIVERED), ("vote-request", UNSEEN), ("append", DROPPED), ("append", DROPPED)
    ]  # fmt: skip
    assert trace.events[found[0].received].k == "recv"
    assert all(message.to == 1 for message in found)


def test_a_message_received_twice_is_two_arrows():
    made = Made()
    made.at(1, "n1", "send", m="1", to="n2", type="append")
    made.at(2, "n2", "recv", m="1", fr="n1", type="append")
    made.at(3, "n2", "recv", m="1", fr="n1", type="append")
    trace = made.trace()
    assert [message.received for message in messages_of(trace, lanes_of(trace))] == [1, 2]


def test_an_address_that_was_dialled_is_known_by_who_received_from_it():
    made = Made()
    made.at(1, "a1", "send", m="1", to="127.0.0.1:9", type="AgentHello")
    made.at(2, "n1", "recv", m="1", fr="a1", type="AgentHello")
    made.at(3, "a1", "send", m="2", to="127.0.0.1:9", type="Heartbeat")
    made.at(4, "a1", "send", m="3", to="127.0.0.1:8", type="Heartbeat")
    trace = made.trace()
    lanes = lanes_of(trace)
    known = [lane.name for lane in lanes].index("n1")
    assert [message.to for message in messages_of(trace, lanes)] == [known, known, -1]


@pytest.mark.parametrize(
    ("type_", "expected"),
    [("pre-vote-request", "election"), ("append-reply", "replication"), ("Heartbeat", "session"), ("answer", "call"),
     ("snapshot-chunk", "snapshot"), ("JoinRequest", "membership"), ("founding", "membership"), ("brand-new", "other")],
)  # fmt: skip
def test_message_types_fall_into_classes(type_, expected):
    assert class_of(type_) == expected


def test_roles_follow_each_other_and_a_term_seen_in_a_vote_does_not_end_a_role():
    made = Made()
    made.at(0, "n1", "meta")
    made.at(10, "n1", "role", role="follower", term=1)
    made.at(20, "n1", "vote", term=2, candidate="n2")
    made.at(30, "n1", "append", term=2, first=1, index=1)
    made.at(40, "n1", "role", role="leader", term=3)
    made.at(90, "n1", "note", text="end")
    found = roles(made.line())
    assert [(bar.what, bar.number, bar.start // 1000, bar.end // 1000) for bar in found] == [
        ("starting", 0, 0, 10), ("follower", 1, 10, 30), ("follower", 2, 30, 40), ("leader", 3, 40, 90)
    ]  # fmt: skip


def test_a_killed_replica_leads_until_its_kill_and_is_away_until_its_next_life():
    made = Made()
    made.at(0, "n1", "role", role="leader", term=1)
    made.at(50, "client", "fault", id="k", kind="kill", target="n1", args={}, by={"rule": "SIGKILL"})
    made.at(60, "client", "heal", id="k", kind="kill", target="n1")
    made.at(70, "n1", "meta", inc="2")
    made.at(90, "n1", "role", inc="2", role="follower", term=1)
    line = made.line()
    assert [(bar.what, bar.end // 1000) for bar in roles(line)][:1] == [("leader", 50)]
    away = {bar.what: (bar.start // 1000, bar.end // 1000) for bar in absences(line)}
    assert away == {"kill": (50, 60), "away": (0, 70)}


def test_a_pause_of_an_agents_process_greys_its_node():
    made = Made()
    made.at(0, "a1", "run", do="start", allocation="default/x.0", epoch=1)
    made.at(5, "client", "fault", id="p", kind="pause", target="a1.sandboxer", args={}, by={"rule": "SIGSTOP"})
    made.at(9, "client", "note", text="end")
    line = made.line()
    assert [(bar.what, line.lanes[bar.lane].name, bar.end // 1000) for bar in absences(line)] == [("pause", "a1", 9)]


def test_workloads_tell_how_they_ended_and_overlapping_ones_lie_in_rows():
    made = Made()
    code = {"code": 0, "signal": None, "reason": "exited", "status_known": True}
    for number, exit_ in enumerate([code, code | {"code": 1}, code | {"status_known": False}, None]):
        made.at(number, "a1", "run", do="start", allocation=f"default/x.{number}", epoch=number, attempt=1)
        if exit_ is not None:
            made.at(50 + number, "a1", "run", do="exit", allocation=f"default/x.{number}", epoch=number, exit=exit_)
    made.at(60, "a1", "run", do="start", allocation="default/y.0", epoch=9, attempt=1)
    made.at(61, "a1", "run", do="oom", allocation="default/y.0", epoch=9)
    made.at(62, "a1", "run", do="exit", allocation="default/y.0", epoch=9, exit=code | {"reason": "oom"})
    found = workloads(made.line())
    assert [(bar.what, bar.row) for bar in found] == [("ok", 0), ("failed", 1), ("lost", 2), ("running", 3), ("oom", 0)]
    assert found[3].end == 62_000


def test_operations_are_acknowledged_refused_or_unknown_and_only_of_callers():
    made = Made()
    made.at(0, "n1", "role", role="leader", term=1)
    for id_, phase in (("a", "ok"), ("b", "fail"), ("c", "info"), ("d", "")):
        made.at(1, "client", "op", ph="invoke", id=id_, op="submit", key="default/x")
        made.at(1, "n1", "op", ph="invoke", id=id_, op="submit", key="default/x")
        if phase:
            made.at(2, "client", "op", ph=phase, id=id_, op="submit", key="default/x")
    found = operations(made.line())
    assert sorted(bar.what for bar in found) == ["acked", "refused", "unknown", "unknown"]


def test_a_scenarios_partition_has_sides_links_and_its_heal():
    made = Made()
    for node in ("n1", "n2", "n3"):
        made.at(0, node, "role", role="follower", term=1)
    args = {"groups": [["n1"], ["n2", "n3"]], "links": ["n1~n2", "n2~n1"]}
    made.at(10, "client", "fault", id="p", kind="partition", target="n1", args=args, by={"rule": "scenario"})
    made.at(11, "proxy", "fault", id="q", kind="timeout", target="n1~n2", args={}, by={"proxy": "n1~n2"})
    made.at(30, "client", "heal", id="p", kind="partition", target="n1")
    line = made.line()
    (band,) = bands(line, toxics(line))
    assert (band.sides, band.links) == (((0,), (1, 2)), ((0, 1), (1, 0)))
    assert (band.label, band.start // 1000, band.end // 1000, band.cut) == ("partition n1 | n2 n3", 10, 30, True)


def _toxic_run(*links: str, kind: str = "timeout") -> Timeline:
    made = Made()
    for node in ("n1", "n2", "n3"):
        made.at(0, node, "role", role="follower", term=1)
    made.at(0, "a1", "run", do="start", allocation="default/x.0", epoch=1)
    for link in links:
        made.at(10, "proxy", "fault", id=link, kind=kind, target=link, args={"timeout": 0}, by={"proxy": link})
        made.at(20, "proxy", "heal", id=link, kind=kind, target=link)
    return made.line()


def test_toxics_nobody_told_of_make_a_band_whose_sides_come_from_the_links_left():
    line = _toxic_run("n1~n2", "n2~n1", "n1~n3", "n3~n1", "a1~n1")
    (band,) = bands(line, toxics(line))
    assert band.sides == ((0,), (1, 2, 3))


def test_a_cut_in_one_direction_parts_nobody_but_shows_its_link():
    line = _toxic_run("n1~n2", "n1~n3")
    (band,) = bands(line, toxics(line))
    assert (band.sides, band.links, band.cut) == ((), ((0, 1), (0, 2)), True)
    assert band.label == "timeout n1→n2 n1→n3"


def test_agents_cut_off_from_a_replica_do_not_make_its_one_way_cut_a_partition():
    line = _toxic_run("n1~n2", "n1~n3", "a1~n1")
    (band,) = bands(line, toxics(line))
    assert band.sides == (), "n2 and n3 still reach n1"


def test_a_delay_is_no_cut():
    line = _toxic_run("n1~n2", "n2~n1", "n1~n3", "n3~n1", "a1~n1", kind="latency")
    (band,) = bands(line, toxics(line))
    assert (band.sides, band.cut) == ((), False)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 62), 1 << 62) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def _as_page_reads(value: Any) -> Any:
    """Whole numbers beyond a double are text on the page."""
    if isinstance(value, dict):
        return {key: _as_page_reads(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_page_reads(each) for each in value]
    exact = isinstance(value, bool) or not isinstance(value, int) or abs(value) < 1 << 53
    return value if exact else str(value)


@given(st.lists(_json, max_size=12))
@settings(max_examples=150, deadline=None)
def test_a_column_gives_back_what_was_put_in(values):
    back = _decoded(msgspec.json.decode(msgspec.json.encode(column(values))))
    assert msgspec.json.encode(back) == msgspec.json.encode([_as_page_reads(value) for value in values])


def test_the_table_of_events_gives_back_every_field(run):
    table = page_data(run)["events"]
    rows = [0] * len(table["shapes"])
    columns = [[_decoded(each) for each in shape] for shape in table["columns"]]
    numbers: dict[int, tuple[int, int]] = {}
    for at, event in enumerate(run.events):
        shape = table["shape"][at]
        fields = {name: columns[shape][c][rows[shape]] for c, name in enumerate(table["shapes"][shape])}
        rows[shape] += 1
        assert fields == event.f
        i, lc = numbers.get(table["life"][at], (-1, 0))
        numbers[table["life"][at]] = i, lc = i + 1 + table["i"][at], lc + table["lc"][at]
        assert (i, lc, table["kinds"][table["kind"][at]]) == (event.i, event.lc, event.k)
        assert table["start"] * 1000 + sum(table["ms"][: at + 1]) * 1000 + table["t"][at] == round(event.t * 1e6)


def test_the_story_opens_at_its_events(run):
    data = page_data(run, explain_trace(run))
    assert data["story"][0]["x"] == 0
    timed = [sentence for sentence in data["story"] if sentence["timed"]]
    assert [sentence["x"] for sentence in timed] == sorted(sentence["x"] for sentence in timed)
    leader = next(sentence for sentence in timed if "became leader of term 2" in sentence["text"])
    assert any(run.events[at].k == "role" for at in leader["refs"])


def test_an_empty_trace_is_a_page_too():
    data = page_data(Trace([]))
    assert (data["lanes"], data["end"], data["summary"]["events"]) == ([], 0, 0)


_kinds = st.sampled_from(
    ["send", "recv", "drop", "role", "vote", "commit", "op", "place", "run", "fault", "heal", "meta"]
)
_names = st.sampled_from(
    ["m", "to", "fr", "type", "role", "term", "ph", "id", "do", "allocation", "epoch", "exit", "target", "args", "by"]
)
_values = _json | st.sampled_from(["n1", "n1~n2", "kill", "ok", "start", "exit"]) | st.just({"proxy": "n1~n2"})


@given(
    st.lists(
        st.tuples(
            st.integers(0, (1 << 63) - 1),
            st.sampled_from(["n1", "n2", "a1"]),
            st.integers(0, (1 << 63) - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            _kinds,
            st.dictionaries(_names, _values, max_size=6),
        ),
        max_size=14,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_trace_that_can_be_read_breaks_the_page(events):
    trace = Trace([Event(hlc, n, "1", i, t, k, f, i) for hlc, n, i, t, k, f in events])
    assert msgspec.json.encode(page_data(trace))


def test_a_node_declared_lost_is_shown_until_it_is_heard_again():
    made = Made()
    made.at(0, "a1", "run", do="start", allocation="default/x.0", epoch=1)
    for replica in ("n1", "n2"):
        made.at(10, replica, "node", do="lost", index=5, node="a1", state="lost")
    made.at(30, "n1", "node", do="register", index=9, node="a1", state="ready")
    made.at(40, "n1", "note", text="end")
    assert [(bar.what, bar.start // 1000, bar.end // 1000) for bar in absences(made.line())] == [("lost", 10, 30)]


def test_a_fenced_workload_is_told_from_a_stopped_one():
    made = Made()
    for name, do in (("x", "fenced"), ("y", "stop")):
        made.at(1, "a1", "run", do="start", allocation=f"default/{name}.0", epoch=1)
        made.at(2, "a1", "run", do=do, allocation=f"default/{name}.0", epoch=1)
        made.at(3, "a1", "run", do="exit", allocation=f"default/{name}.0", epoch=1, exit={"status_known": True})
    assert _words(workloads(made.line())) == [("fenced", "default/x.0"), ("stopped", "default/y.0")]
