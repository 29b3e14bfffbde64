"""An agent's labels and taints, from its configuration to its hello."""

from __future__ import annotations

import pytest

from agents.settings import AgentSettings, settings_from
from cluster.config import load
from cluster.errors import ConfigError
from scheduler.model import Taint, TaintEffect
from scheduler.session import AgentHello, Frame, decode_frame, encode_frame

BASE = {
    "agent.id": "a1",
    "agent.dir": "a1",
    "agent.replicas": "127.0.0.1:7100",
    "security.link_token": "t" * 32,
}


def settings(**flags: str) -> AgentSettings:
    return settings_from(load(environ={}, flags=BASE | {f"agent.{key}": value for key, value in flags.items()}))


def test_labels_and_taints_are_read_from_the_configuration() -> None:
    found = settings(labels="zone=x,disk=ssd", taints="dedicated=db:NoSchedule,old:PreferNoSchedule")
    assert found.labels == {"disk": "ssd", "zone": "x"}
    assert found.taints == (
        Taint("dedicated", "db", TaintEffect.NO_SCHEDULE),
        Taint("old", "", TaintEffect.PREFER_NO_SCHEDULE),
    )
    assert (settings().labels, settings().taints) == ({}, ())


@pytest.mark.parametrize(("key", "value"), [("labels", "-x=y"), ("taints", "dedicated=db"), ("taints", "x:Never")])
def test_what_is_no_label_or_taint_is_refused_with_its_origin(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"agent.{key}") as caught:
        settings(**{key: value})
    assert caught.value.hint


def test_a_hello_of_an_older_agent_has_neither() -> None:
    from scheduler.model import Capacity

    hello = AgentHello(1, "a1", "i1", "b1", "", Capacity(1, 1, 1), "full", "", "127.0.0.1")
    data = encode_frame(Frame("m", 1, 2, hello))
    again = decode_frame(data).body
    assert isinstance(again, AgentHello)
    assert (again.labels, again.taints) == ({}, ())
