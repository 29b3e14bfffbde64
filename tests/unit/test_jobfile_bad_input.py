"""Every bad job file is refused with code bad-job, the field, and what to do."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import JobFileError
from scheduler.jobfile import job_from_object, load_job, parse_job, resolve_object
from scheduler.model import JOB_FILE_BYTES_MAX

Case = tuple[dict[str, Any], str, str]


def fields(**changes: Any) -> dict[str, Any]:
    """A good job with changes; a value of ... leaves a field out."""
    good: dict[str, Any] = {"name": "web", "command": ["/bin/sleep", "60"]}
    return {key: value for key, value in (good | changes).items() if value is not ...}


REQUIRED, PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))
NODE_TERMS = f"affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
SPREAD = "topologySpreadConstraints[0]"
EVENLY = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}


def expression(operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "k", "operator": operator} | ({"values": list(values)} if values else {})]}


def node_affinity(*terms: Any) -> dict[str, Any]:
    return fields(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}})


def amounts(part: str, **values: Any) -> dict[str, Any]:
    return fields(resources={part: values})


def port(**values: Any) -> dict[str, Any]:
    return fields(ports=[{"name": "http", "hostPort": 8080} | values])


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


BAD: list[Case] = [
    (fields(name=...), "name", "add a name"),
    (fields(name=None), "name", "letters"),
    (fields(name=7), "name", "letters"),
    (fields(name=""), "name", "letters"),
    (fields(name="Web"), "name", "letters"),
    (fields(name="web_1"), "name", "letters"),
    (fields(name="-web"), "name", "letters"),
    (fields(name="web-"), "name", "letters"),
    (fields(name="web.1"), "name", "letters"),
    (fields(name="web/1"), "name", "letters"),
    (fields(name="../../etc"), "name", "letters"),
    (fields(name="web\n"), "name", "letters"),
    (fields(name="w" * 64), "name", "letters"),
    (fields(name="wéb"), "name", "letters"),
    (fields(name=["web"]), "name", "letters"),
    (fields(namespace="Team A"), "namespace", "letters"),
    (fields(namespace=""), "namespace", "letters"),
    (fields(namespace=3), "namespace", "letters"),
    (fields(namespace="team\n"), "namespace", "letters"),
    (fields(kind="daemon"), "kind", "service"),
    (fields(kind="Service"), "kind", "service"),
    (fields(kind=1), "kind", "service"),
    (fields(kind=None), "kind", "service"),
    (fields(replicas="3"), "replicas", "whole number"),
    (fields(replicas=-1), "replicas", "whole number"),
    (fields(replicas=100_001), "replicas", "whole number"),
    (fields(replicas=1.5), "replicas", "whole number"),
    (fields(replicas=True), "replicas", "whole number"),
    (fields(replicas=10**30), "replicas", "whole number"),
    (fields(replicas=None), "replicas", "whole number"),
    (fields(command=...), "command", "as a list"),
    (fields(command=[]), "command", "as a list"),
    (fields(command="sleep 60"), "command", "as a list"),
    (fields(command=["/bin/sleep", 60]), "command[1]", "as a list"),
    (fields(command=[None]), "command[0]", "as a list"),
    (fields(command=[""]), "command[0]", "as a list"),
    (fields(command=["a\0b"]), "command[0]", "remove"),
    (fields(command=["x"] * 257), "command", "as a list"),
    (fields(command=["x" * 32_769]), "command[0]", "as a list"),
    (fields(command=["x" * 32_000] * 5), "command", "in a file"),
    (fields(command={"run": "x"}), "command", "as a list"),
    (fields(command=["\ud800"]), "command[0]", "Unicode"),
    (fields(env=[]), "env", "text values"),
    (fields(env={"A": 1}), "env.A", "text values"),
    (fields(env={"A": "ok", "B": None}), "env.B", "text values"),
    (fields(env={"A": "x" * 32_769}), "env.A", "text values"),
    (fields(env={"1A": "x"}), "env.1A", "digit"),
    (fields(env={"": "x"}), "env.", "letters"),
    (fields(env={"A B": "x"}), "env.A B", "letters"),
    (fields(env={"A=B": "x"}), "env.A=B", "letters"),
    (fields(env={"É": "x"}), "env.É", "letters"),
    (fields(env={"A\n": "x"}), "env.A\n", "letters"),
    (fields(env={"A": "x\0y"}), "env.A", "remove"),
    (fields(env={"A\0": "x"}), "env", "remove"),
    (fields(env={"SKERRY_TOKEN": "x"}), "env.SKERRY_TOKEN", "agent"),
    (fields(env={f"V{n}": "" for n in range(257)}), "env", "text values"),
    (fields(env={f"V{n}": "x" * 30_000 for n in range(5)}), "env", "in a file"),
    (fields(priority="high"), "priority", "whole number"),
    (fields(priority=10**9 + 1), "priority", "whole number"),
    (fields(nodeSelector=["disk"]), "nodeSelector", "labels"),
    (fields(nodeSelector={"disk": 1}), "nodeSelector.disk", "labels"),
    (fields(nodeSelector={"di sk": "x"}), "nodeSelector", "labels"),
    (fields(tolerations={"key": "x"}), "tolerations", "write a list"),
    (fields(tolerations=[{"key": "x", "operator": "Like"}]), "tolerations[0].operator", "Equal"),
    (fields(tolerations=[{"key": "x", "operator": "Lt"}]), "tolerations[0].value", "number"),
    (fields(tolerations=[{"key": "x", "operator": "Gt", "value": "high"}]), "tolerations[0].value", "number"),
    (fields(tolerations=[{"operator": "Gt", "value": "3"}]), "tolerations[0].key", "Exists"),
    (fields(tolerations=[{"key": "x", "effect": "NoRun"}]), "tolerations[0].effect", "NoSchedule"),
    (fields(tolerations=[{"key": "x", "operator": "Exists", "value": "y"}]), "tolerations[0].value", "Equal"),
    (fields(tolerations=[{"value": "y"}]), "tolerations[0].key", "Exists"),
    (fields(tolerations=[{"key": "x", "tolerationSeconds": 3}]), "tolerations[0].tolerationSeconds", "no delay"),
    (fields(affinity=[]), "affinity", "nodeAffinity"),
    (fields(affinity={"podAfinity": {}}), "affinity.podAfinity", "did you mean podAffinity?"),
    (node_affinity({}), f"{NODE_TERMS}[0]", "matchExpressions"),
    (node_affinity(), NODE_TERMS, "terms such as"),
    (node_affinity(expression("In")), f"{NODE_TERMS}[0].matchExpressions[0].values", '"a"'),
    (node_affinity(expression("Exists", "a")), f"{NODE_TERMS}[0].matchExpressions[0].values", "leave values out"),
    (node_affinity(expression("Gt", "many")), f"{NODE_TERMS}[0].matchExpressions[0].values", "in quotes"),
    (node_affinity(expression("Like", "a")), f"{NODE_TERMS}[0].matchExpressions[0].operator", "In"),
    (node_affinity(expression("In", "a b")), f"{NODE_TERMS}[0].matchExpressions[0].values[0]", "label values"),
    (
        node_affinity({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}),
        f"{NODE_TERMS}[0].matchFields[0]",
        "metadata.name",
    ),
    (
        fields(affinity={"nodeAffinity": {PREFERRED: [{"weight": 0, "preference": expression("Exists")}]}}),
        f"affinity.nodeAffinity.{PREFERRED}[0].weight",
        "1 to 100",
    ),
    (
        fields(affinity={"podAffinity": {REQUIRED: [{"labelSelector": {}}]}}),
        f"affinity.podAffinity.{REQUIRED}[0].topologyKey",
        "label",
    ),
    (
        fields(
            affinity={"podAntiAffinity": {REQUIRED: [{"topologyKey": "z", "labelSelector": expression("Gt", "1")}]}}
        ),
        f"affinity.podAntiAffinity.{REQUIRED}[0].labelSelector.matchExpressions[0].operator",
        "NotIn",
    ),
    (
        fields(affinity={"podAffinity": {REQUIRED: [{"topologyKey": "z", "namespaces": ["No Name"]}]}}),
        f"affinity.podAffinity.{REQUIRED}[0].namespaces[0]",
        "small letters",
    ),
    (fields(labels={"skerry/job": "x"}), "labels.skerry/job", "of your own"),
    (fields(labels={"a": 1}), "labels.a", "app"),
    (fields(topologySpreadConstraints=[{"topologyKey": "z"}]), f"{SPREAD}.labelSelector", "skerry/job"),
    (fields(topologySpreadConstraints=[{**EVENLY, "maxSkew": 0}]), f"{SPREAD}.maxSkew", "whole number"),
    (
        fields(topologySpreadConstraints=[{**EVENLY, "minDomains": 2, "whenUnsatisfiable": "ScheduleAnyway"}]),
        f"{SPREAD}.minDomains",
        "DoNotSchedule",
    ),
    (fields(topologySpreadConstraints=[EVENLY, EVENLY]), "topologySpreadConstraints[1].topologyKey", "leave one"),
    (fields(resources=[]), "resources", "requests and limits"),
    (fields(resources={"request": {}}), "resources.request", "requests"),
    (fields(resources={"limit": {}}), "resources.limit", "limits"),
    (fields(resources={"cpu": "1"}), "resources.cpu", "under requests"),
    (fields(resources={"requests": "1"}), "resources.requests", "amounts"),
    (amounts("requests", cpu="abc"), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu="-1"), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu=-1), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu="0"), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu=0), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu="0.0005"), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu=True), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu=[1]), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu=float("nan")), "resources.requests.cpu", "250m"),
    (amounts("requests", cpu="1" * 33), "resources.requests.cpu", "250m"),
    (amounts("limits", cpu="1core"), "resources.limits.cpu", "250m"),
    (amounts("requests", memory="64MB"), "resources.requests.memory", "64Mi"),
    (amounts("requests", memory="64 Mi"), "resources.requests.memory", "64Mi"),
    (amounts("requests", memory="128m"), "resources.requests.memory", "megabytes"),
    (amounts("requests", memory="1.5"), "resources.requests.memory", "64Mi"),
    (amounts("requests", memory=0), "resources.requests.memory", "64Mi"),
    (amounts("requests", memory="9Ei"), "resources.requests.memory", "64Mi"),
    (amounts("limits", memory="-64Mi"), "resources.limits.memory", "64Mi"),
    (amounts("limits", memory={"Mi": 64}), "resources.limits.memory", "64Mi"),
    (amounts("limits", memorry="64Mi"), "resources.limits.memorry", "did you mean memory?"),
    (amounts("requests", pids=0), "resources.requests.pids", "whole number"),
    (amounts("requests", pids="10"), "resources.requests.pids", "whole number"),
    (amounts("limits", pids=4_194_305), "resources.limits.pids", "whole number"),
    (amounts("limits", gpu=1), "resources.limits.gpu", "known fields"),
    (fields(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}), "resources.requests.cpu", "at most"),
    (
        fields(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
        "resources.requests.memory",
        "at most",
    ),
    (fields(resources={"requests": {"pids": 9}, "limits": {"pids": 8}}), "resources.requests.pids", "at most"),
    (fields(ports={}), "ports", "list"),
    (fields(ports=[8080]), "ports[0]", "list"),
    (fields(ports=[{"name": "http"}]), "ports[0].hostPort", "1 to 65535"),
    (fields(ports=[{"hostPort": 80}]), "ports[0].name", "name"),
    (port(hostPort=0), "ports[0].hostPort", "1 to 65535"),
    (port(hostPort=65_536), "ports[0].hostPort", "1 to 65535"),
    (port(hostPort="80"), "ports[0].hostPort", "1 to 65535"),
    (port(hostPort=80.5), "ports[0].hostPort", "1 to 65535"),
    (port(host_port=80), "ports[0].host_port", "did you mean hostPort?"),
    ({**port(containerPort=80), "network": "host"}, "ports[0].containerPort", "network bridge"),
    ({**port(), "network": "none"}, "ports", "network bridge"),
    (fields(network="nat"), "network", "host, none or bridge"),
    (fields(hostNetwork=True), "hostNetwork", 'network: "host"'),
    (port(name="HTTP"), "ports[0].name", "letters"),
    (port(protocol="udp"), "ports[0].protocol", "known fields"),
    (fields(ports=[{"name": "a", "hostPort": 80}, {"name": "b", "hostPort": 80}]), "ports[1].hostPort", "own number"),
    (fields(ports=[{"name": "a", "hostPort": 80}, {"name": "a", "hostPort": 81}]), "ports[1].name", "own name"),
    (fields(ports=[{"name": f"p{n}", "hostPort": n + 1} for n in range(65)]), "ports", "list"),
    (fields(restartPolicy="always"), "restartPolicy", "OnFailure"),
    (fields(restartPolicy=""), "restartPolicy", "OnFailure"),
    (fields(restart_policy="Always"), "restart_policy", "did you mean restartPolicy?"),
    (fields(kind="batch", restartPolicy="Always"), "restartPolicy", "OnFailure"),
    (fields(backoffLimit=-1), "backoffLimit", "0 to 1000"),
    (fields(backoffLimit=1001), "backoffLimit", "0 to 1000"),
    (fields(backoffLimit="6"), "backoffLimit", "0 to 1000"),
    (fields(restartPolicy="Never", backoffLimit=3), "backoffLimit", "leave"),
    (fields(terminationGracePeriodSeconds=-1), "terminationGracePeriodSeconds", "seconds"),
    (fields(terminationGracePeriodSeconds=3601), "terminationGracePeriodSeconds", "seconds"),
    (fields(terminationGracePeriodSeconds="5s"), "terminationGracePeriodSeconds", "seconds"),
    (fields(on_disconnect="restart"), "on_disconnect", "keep or stop"),
    (fields(onDisconnect="keep"), "onDisconnect", "did you mean on_disconnect?"),
    (fields(replica=3), "replica", "did you mean replicas?"),
    (fields(comand=["x"]), "comand", "did you mean command?"),
    (fields(image="nginx"), "image", "use command"),
    (fields(cpu="1"), "cpu", "under requests"),
    (fields(**{"": 1}), "", "known fields"),
    (fields(deep=nested(40)), "deep" + "[0]" * 32, "no field"),
]


@pytest.mark.parametrize(("value", "field", "hint"), BAD, ids=[f"{n}-{case[1]}"[:40] for n, case in enumerate(BAD)])
def test_a_bad_job_names_its_field_and_says_what_to_do(value: dict[str, Any], field: str, hint: str) -> None:
    with pytest.raises(JobFileError) as caught:
        resolve_object(value)
    error = caught.value
    assert error.code == "bad-job"
    assert error.details["field"] == field
    assert hint in error.hint
    assert error.message
    assert len(str(error)) < 2000


def test_the_table_of_bad_jobs_is_long() -> None:
    assert len(BAD) >= 100


BAD_TEXTS = [
    ("yaml", "", "begin with"),
    ("yaml", "# nothing", "begin with"),
    ("yaml", "- a\n- b", "begin with"),
    ("yaml", "just words", "begin with"),
    ("yaml", "name: [", "YAML"),
    ("yaml", "name: web\nname: api\ncommand: [x]", "keep one"),
    ("yaml", "a: &a [x]\nb: *a\n", "aliases"),
    ("yaml", "name: web\ncommand: !!python/object/apply:os.system [ls]", "tags"),
    ("yaml", "name: web\ncommand: !!set {a, b}", "tags"),
    ("yaml", "name: web\ncommand: !!omap [a: b]", "tags"),
    ("yaml", "name: !!binary d2Vi", "tags"),
    ("yaml", "name: !!int web", "YAML"),
    ("yaml", "name: !secret web", "tags"),
    ("yaml", "1: web", "quotes"),
    ("yaml", "? [a, b]\n: c", "quotes"),
    ("yaml", "<<: {name: web}", "merges"),
    ("yaml", "name: web\n---\nname: api", "YAML"),
    ("yaml", "name: web\n\tcommand: [x]", "YAML"),
    ("yaml", "x: " + "[" * 10_000, "no field"),
    ("yaml", "name: \x01web", "YAML"),
    ("json", "", "JSON"),
    ("json", "{", "JSON"),
    ("json", "[]", "begin with"),
    ("json", "null", "begin with"),
    ("json", '{"name": "a", "name": "b"}', "keep one"),
    ("json", '{"replicas": NaN}', "JSON"),
    ("json", '{"replicas": Infinity}', "JSON"),
    ("json", "name: web", "JSON"),
    ("json", "[" * 100_000, "no field"),
    ("json", '{"command": ["\\u0000"]}', "remove"),
    ("json", '{"command": ["\\ud800"]}', "Unicode"),
    ("json", '{"replicas": ' + "9" * 5000 + "}", "JSON"),
    ("toml", "name", "TOML"),
    ("toml", 'name = "a"\nname = "b"', "TOML"),
    ("toml", "name = web", "TOML"),
    ("toml", 'name = "a\\u0000"', "remove"),
    ("xml", "<job/>", "toml, yaml, json"),
]


@pytest.mark.parametrize(("format", "text", "hint"), BAD_TEXTS)
def test_a_bad_text_is_refused_with_a_hint(format: str, text: str, hint: str) -> None:
    with pytest.raises(JobFileError) as caught:
        load_job(text, format=format)
    assert caught.value.code == "bad-job"
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 1000


def test_an_expanding_alias_bomb_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(JobFileError, match="alias"):
        load_job("\n".join(lines), format="yaml")


@pytest.mark.parametrize("format", ["yaml", "json", "toml"])
def test_a_file_past_the_size_limit_is_refused_before_it_is_read(format: str) -> None:
    with pytest.raises(JobFileError, match="bytes"):
        load_job(b" " * (JOB_FILE_BYTES_MAX + 1), format=format)


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(JobFileError, match="UTF-8 at byte 6"):
        load_job(b"name: \xff", format="yaml")


@pytest.mark.parametrize("name", [None, "job", "job.txt", "job.yaml.bak"])
def test_an_unknown_file_ending_is_refused(name: str | None) -> None:
    with pytest.raises(JobFileError) as caught:
        parse_job("name: web\ncommand: [x]", name=name)
    assert ".toml" in caught.value.hint


@pytest.mark.parametrize("value", [None, 3, "x", [], True])
def test_what_is_no_object_is_no_job(value: object) -> None:
    with pytest.raises(JobFileError):
        job_from_object(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = ["name", "namespace", "kind", "replicas", "command", "env", "resources", "ports", "restartPolicy"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(names) | st.text(max_size=5), json_values, max_size=5))
def test_any_object_is_a_job_or_a_job_file_error(value: dict[str, Any]) -> None:
    with contextlib.suppress(JobFileError):
        assert resolve_object({"name": "web", "command": ["x"]} | value).replicas >= 0


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["yaml", "json", "toml"]))
def test_any_text_is_a_job_or_a_job_file_error(text: str, format: str) -> None:
    with contextlib.suppress(JobFileError):
        assert load_job(text, format=format).workload.command
