"""Simulated clients: what they ask, what they remember, when they ask again."""

from __future__ import annotations

import pytest

from chaos.scenario.backend import Answer, NotSent, Unanswered
from chaos.sim.swarm.clients import Clients, request_of, told
from chaos.sim.swarm.load import Call
from tests.support.virtual_loop import run_virtually

OK = Answer(201, {"index": 7, "version": 1})
SUBMIT = Call(10, "submit", "j1", "j1.1", "n2", {"name": "j1"})


class Api:
    """Answers from a list."""

    replicas = ("n1", "n2", "n3")

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def ask(self, replica, path, *, body=None, timeout_s):
        self.asked.append((replica, path, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Trace:
    def __init__(self):
        self.phases = []

    def emit(self, kind, /, **fields):
        assert kind == "op"
        self.phases.append(fields["ph"])


def carried_out(call, *answers):
    api, trace = Api(*answers), Trace()
    clients = Clients((call,), api, trace)
    run_virtually(clients.run())
    return clients, api, trace


def test_an_acknowledged_write_is_remembered_with_its_index():
    clients, api, trace = carried_out(SUBMIT, OK)
    assert clients.acknowledged == {"j1.1": ("j1", "submit", 7)}
    assert api.asked == [("n2", "/v1/jobs", {"job": {"name": "j1"}, "request_id": "j1.1"})]
    assert trace.phases == ["invoke", "ok"]


def test_an_unknown_outcome_is_asked_again_elsewhere_under_the_same_id():
    clients, api, trace = carried_out(SUBMIT, Unanswered("timeout"), OK)
    assert [replica for replica, _, _ in api.asked] == ["n2", "n3"]
    assert api.asked[0][2]["request_id"] == api.asked[1][2]["request_id"]
    assert clients.unknown == {}
    assert trace.phases == ["invoke", "info", "invoke", "ok"]


def test_what_stays_unknown_is_kept_and_can_be_resolved_later():
    clients, api, _ = carried_out(SUBMIT, *[Unanswered("timeout")] * 4)
    assert list(clients.unknown) == ["j1.1"]
    api.answers = [OK]
    assert run_virtually(clients.resolve_unknown()) == 0
    assert clients.acknowledged["j1.1"][2] == 7


def test_a_call_that_reached_nobody_goes_to_the_next_replica():
    _, api, trace = carried_out(SUBMIT, NotSent("unreachable"), OK)
    assert len(api.asked) == 2
    assert trace.phases == ["invoke", "fail", "invoke", "ok"]


def test_a_refusal_for_good_is_not_asked_again():
    refusal = Answer(422, {"code": "never-fits", "outcome": "not-done"})
    clients, api, trace = carried_out(SUBMIT, refusal)
    assert len(api.asked) == 1
    assert trace.phases == ["invoke", "fail"]
    assert clients.acknowledged == {}


def test_a_doubled_call_is_made_twice_under_one_id():
    import msgspec

    clients, api, _ = carried_out(msgspec.structs.replace(SUBMIT, twice=True), OK, OK)
    assert [body["request_id"] for _, _, body in api.asked] == ["j1.1", "j1.1"]
    assert len(clients.acknowledged) == 1


@pytest.mark.parametrize(
    ("kind", "status", "document", "phase"),
    [
        ("submit", 503, {"code": "no-quorum", "outcome": "unknown"}, "info"),
        ("submit", 503, {"code": "no-quorum", "outcome": "not-done"}, "fail"),
        ("submit", 500, {"code": "internal", "outcome": "unknown"}, "info"),
        ("read", 404, {"code": "no-such-job", "outcome": "not-done"}, "ok"),
        ("read", 503, {"code": "no-quorum", "outcome": "not-done"}, "fail"),
        ("submit", 200, None, "info"),
    ],
)
def test_what_an_answer_says(kind, status, document, phase):
    assert told(Call(0, kind, "j1", "j1.1", "n1"), status, document)[0] == phase


def test_taints_and_their_removal_name_the_same_taint():
    path, put = request_of(Call(0, "taint", "a1", "op", "n1"))
    _, removed = request_of(Call(0, "untaint", "a1", "op", "n1"))
    assert path == "/v1/nodes/a1/taints"
    assert put["put"][0]["key"] == removed["remove"][0]["key"]
