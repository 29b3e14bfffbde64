"""Dice, clock, tokens, outbox, metrics, log, addresses: small parts, each with its rule."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from cluster import outbox as outbox_module
from cluster.clock import SystemClock
from cluster.dice import SeededDice, SystemDice
from cluster.errors import ConfigError, Forbidden, PeerNotReached, Unauthorized
from cluster.framing import Answer, Ping, Request
from cluster.log import configure
from cluster.metrics import Metrics
from cluster.outbox import Outbox
from cluster.problems import problem_of
from cluster.security import Authority, Scope, bearer, new_token, tokens_equal
from cluster.sockets import join_address, split_address
from cluster.trace_writer import file_tracer
from cluster.wire_trace import WireTrace
from raft.messages import Append, AppendReply, Entry


def test_seeded_dice_repeat_and_their_forks_are_independent():
    one, two = SeededDice(7), SeededDice(7)
    assert [one.below(100) for _ in range(20)] == [two.below(100) for _ in range(20)]
    fork = one.fork("disk")
    expected = [two.fork("disk").below(1000) for _ in range(1)]
    assert [fork.below(1000)] == expected
    assert one.below(1 << 60) == two.below(1 << 60)
    assert SeededDice(8).token(16) != SeededDice(7).token(16)


def test_dice_refuse_an_empty_range():
    for dice in (SystemDice(), SeededDice(1)):
        assert dice.below(1) == 0
        with pytest.raises(ValueError, match=r"\w"):
            dice.below(0)
        assert len(dice.token(9)) == 9


def test_the_clock_goes_forward():
    clock = SystemClock()
    first = clock.now_ns()
    assert clock.now_ns() >= first
    assert clock.wall_ns() > 1_700_000_000 * 10**9


def test_tokens_are_compared_whole_and_an_empty_one_opens_nothing():
    token = new_token(SystemDice())
    assert tokens_equal(token, token)
    assert not tokens_equal(token[:-1], token)
    assert not tokens_equal("", "")
    assert not tokens_equal("\udcff", token)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer ", None),
        ("", None),
        ("Bearer " + "x" * 600, None),
    ],
)
def test_bearer_tokens_are_found_in_their_header(header, token):
    assert bearer(header) == token


def test_scopes_include_the_smaller_ones():
    authority = Authority({"reader-token": Scope.READ, "operator-token": Scope.OPERATE})
    assert authority.check("Bearer operator-token", Scope.SUBMIT) is Scope.OPERATE
    assert authority.check("", Scope.PUBLIC) is Scope.PUBLIC
    with pytest.raises(Forbidden):
        authority.check("Bearer reader-token", Scope.SUBMIT)
    for header in ("", "Bearer reader-toke", "Bearer reader-tokenx"):
        with pytest.raises(Unauthorized):
            authority.check(header, Scope.READ)


def append(size: int = 0) -> Append:
    return Append(1, 0, 0, 0, 0, (Entry(1, 1, 1, b"x" * size),) if size else ())


def test_an_outbox_refuses_past_its_counts_and_bytes(monkeypatch):
    box = Outbox()
    monkeypatch.setattr(outbox_module, "CONSENSUS_MESSAGES_MAX", 3)
    assert [box.put_consensus(append()) for _ in range(4)] == [True, True, True, False]
    monkeypatch.setattr(outbox_module, "CONSENSUS_BYTES_MAX", 1000)
    box = Outbox()
    assert [box.put_consensus(append(400)) for _ in range(3)] == [True, True, False]
    assert box.next_consensus() is not None
    assert box.put_consensus(append(400))
    monkeypatch.setattr(outbox_module, "CALLS_BYTES_MAX", 1000)
    assert [box.put_call(Answer(0, 1, b"x" * 600)) for _ in range(2)] == [True, False]


def test_an_outbox_gives_back_a_request_that_has_not_gone_out():
    box = Outbox()
    box.put_call(Request(1, "m", 10, b"abc"))
    box.put_call(Request(2, "m", 10, b"abc"))
    assert box.cancel_request(1)
    assert not box.cancel_request(1)
    call = box.next_call()
    assert isinstance(call, Request)
    assert call.id == 2
    assert not box


def test_losing_the_link_forgets_what_was_about_it_and_keeps_calls():
    box = Outbox()
    box.put_control(Ping(1, 1))
    box.put_consensus(append())
    box.put_call(Request(1, "m", 10, b""))
    assert box.clear_link_bound() == [append()]
    assert box.next_control() is None
    assert box.next_consensus() is None
    assert box.next_call() is not None


def test_the_oldest_pings_give_way():
    box = Outbox()
    for number in range(outbox_module.CONTROL_MAX + 5):
        box.put_control(Ping(1, number))
    first = box.next_control()
    assert first is not None
    assert first.number == 5


def test_heartbeats_and_their_replies_are_sampled_and_news_never_is(tmp_path):
    tracer = file_tracer("n1", tmp_path, SystemClock(), incarnation="00000000", heartbeat_sample=50)
    wire = WireTrace(tracer, "n2")
    numbered = [bool(wire.number(append())) for _ in range(100)]
    assert (numbered.count(True), numbered[0]) == (2, True)
    assert all(wire.number(append(10)) for _ in range(100))
    assert wire.number(AppendReply(1, True, 5, 0, 0, 0))
    assert wire.number(AppendReply(1, True, 6, 0, 0, 0))
    assert sum(bool(wire.number(AppendReply(1, True, 6, 0, 0, 0))) for _ in range(98)) <= 2
    assert wire.number(AppendReply(1, False, 6, 1, 1, 0))
    tracer.close()


def test_a_sample_of_one_records_all_heartbeats_and_zero_none(tmp_path):
    for every, expected in ((1, 20), (0, 0)):
        tracer = file_tracer("n1", tmp_path, SystemClock(), incarnation=f"0000000{every}", heartbeat_sample=every)
        wire = WireTrace(tracer, "n2")
        assert sum(bool(wire.number(append())) for _ in range(20)) == expected
        tracer.close()


def test_metrics_read_live_state_when_scraped():
    metrics = Metrics()
    state = {"n1": 1.0}
    metrics.read("term", "Current term.", lambda: [((node,), value) for node, value in state.items()], labels=["node"])
    metrics.read("sent_bytes", "Bytes.", lambda: [((), 5.0)], counts=True)
    metrics.counter("elections", "Elections.").inc()
    metrics.histogram("commit_seconds", "Commit latency.").observe(0.002)
    state["n1"] = 9.0
    text = metrics.render().decode()
    assert 'skerry_term{node="n1"} 9.0' in text
    assert "skerry_sent_bytes_total 5.0" in text
    assert "skerry_elections_total 1.0" in text
    assert 'skerry_commit_seconds_bucket{le="0.0025"} 1.0' in text


def test_two_registries_do_not_share_names():
    Metrics().counter("same", "x").inc()
    assert "same_total 0.0" in (lambda m: (m.counter("same", "x"), m.render().decode())[1])(Metrics())


@pytest.fixture
def _plain_logging():
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.usefixtures("_plain_logging")
def test_the_log_redacts_secrets_and_prints_no_local_variables():
    for form in ("json", "console"):
        stream = io.StringIO()
        configure(level="info", form=form, node="n1", stream=stream)
        log = structlog.get_logger("x")
        log.debug("hidden")
        log.info("shown", link_token="secret-1", authorization="secret-2", peer="n2")
        try:
            secret_local = "secret-3"
            raise ValueError(len(secret_local))
        except ValueError:
            log.exception("failed")
        text = stream.getvalue()
        assert "secret-" not in text.replace('secret_local = "secret-3"', "")
        assert "hidden" not in text
        assert "ValueError" in text
        assert "n1" in text
        if form == "json":
            first = json.loads(text.splitlines()[0])
            assert (first["event"], first["peer"], first["link_token"]) == ("shown", "n2", "***")


def test_addresses_split_and_join():
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address(":80") == ("", 80)
    assert join_address("::1", 80) == "[::1]:80"
    for text in ("x", "x:", "x:99999", "x:-1", "x:٣"):
        with pytest.raises(ConfigError):
            split_address(text, "replica.listen_api")


def test_a_problem_document_names_leader_code_and_outcome():
    problem = problem_of(PeerNotReached("gone", hint="retry", peer="n2", leader="n3"), "n1")
    assert (problem.status, problem.code, problem.outcome, problem.leader) == (
        504,
        "peer-unreachable",
        "not-done",
        "n3",
    )
    assert problem.details == {"peer": "n2"}
