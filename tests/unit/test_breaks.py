from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from chaos.breaks import BREAKS, break_process, find_breaks, in_force, place_of
from chaos.errors import BreakUnknown
from chaos.trace.checkers import CHECKERS
from cluster.trace import PROCESS_META
from scheduler.model import Limits, Workload
from scheduler.session import Assignment, Desired, StopOrder
from skerry.cli.daemons import known_breaks
from skerry.cli.root import root
from skerry.errors import UsageError


@pytest.fixture
def unbroken() -> Iterator[None]:
    """Puts production back in force."""
    originals = {name: _production(name) for name in BREAKS}
    yield
    for name, function in originals.items():
        setattr(*place_of(BREAKS[name]), function)
    PROCESS_META.clear()


def _production(name: str):
    return getattr(*place_of(BREAKS[name]))


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_break_takes_the_place_of_one_production_function_of_the_same_parameters(name):
    production, replacement = _production(name), BREAKS[name].replacement
    assert production is not replacement
    assert list(inspect.signature(production).parameters) == list(inspect.signature(replacement).parameters)


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_every_break_names_a_checker_that_finds_it(name):
    assert BREAKS[name].checker in CHECKERS


@pytest.mark.usefixtures("unbroken")
def test_a_break_in_force_is_loud_in_the_log_and_in_every_trace_of_the_process(capsys):
    break_process(["absence-stops"], "agent")
    assert _production("absence-stops") is BREAKS["absence-stops"].replacement
    assert PROCESS_META == {"breaks": ["absence-stops"]}
    said = "".join(capsys.readouterr())
    assert "DELIBERATELY BROKEN" in said
    assert "absence-stops" in said


def test_no_fencing_moves_the_deadline_far_away_and_production_does_not():
    assert _production("no-fencing")(1_000, 10) == 1_010
    assert BREAKS["no-fencing"].replacement(1_000, 10) > 1_000_000_000_000


def test_absence_stops_orders_what_no_record_orders_and_production_does_not():
    workload = Workload("x", "default", "service", ("/bin/true",), {}, Limits(0, 0, 0), (), 1, "keep")
    wanted = Desired(0, 9, (Assignment("default/a.0", 1, 1, workload),), (StopOrder("default/b.0", 2, 5),))
    live = (("default/a.0", 1), ("default/c.0", 3))
    assert set(_production("absence-stops")(wanted, live)) == {("default/b.0", 2)}
    assert set(BREAKS["absence-stops"].replacement(wanted, live)) == {("default/b.0", 2), ("default/c.0", 3)}


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_break_around_a_world_is_taken_back_also_when_it_fails(name):
    production = _production(name)
    seen = []

    def fails() -> None:
        with in_force([name]):
            seen.append(_production(name))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [BREAKS[name].replacement]
    assert _production(name) is production


def test_there_are_breaks_of_every_kind_of_process_and_each_teaches_something_else():
    assert {each.role for each in BREAKS.values()} == {"replica", "agent", "sandboxer"}
    assert len({each.lesson for each in BREAKS.values()}) == len(BREAKS) >= 26
    assert len({(each.module, each.function) for each in BREAKS.values()}) == len(BREAKS)


def test_a_break_of_the_sandboxer_is_refused_to_live_processes():
    with pytest.raises(UsageError, match="simulated"):
        known_breaks(("pid-reuse",))


def test_an_unknown_break_is_refused_and_the_known_ones_are_named():
    with pytest.raises(BreakUnknown) as refused:
        find_breaks(["no-fencing", "nonsense"])
    assert "no-fencing" in refused.value.hint


def test_a_break_of_agents_is_refused_by_a_replica():
    with pytest.raises(BreakUnknown):
        break_process(["no-fencing"], "replica")
    assert not PROCESS_META


def test_the_command_line_refuses_an_unknown_break_before_anything_starts(tmp_path):
    home = tmp_path / "cluster"
    answer = CliRunner().invoke(root, ["dev", "--break", "nonsense", "--dir", str(home)], standalone_mode=False)
    assert isinstance(answer.exception, UsageError)
    assert not home.exists()
