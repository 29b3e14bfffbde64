"""Good job files in every format, and the defaults that fill them."""

from __future__ import annotations

import pytest

from scheduler.jobfile import load_job, parse_job, resolve_object
from scheduler.model import Limits, ResolvedJob, Toleration

MIB = 1 << 20

TOML = """
name = "web"
namespace = "shop"
replicas = 3
command = ["/bin/sh", "-c", "exec sleep 60"]
restartPolicy = "OnFailure"
backoffLimit = 2
terminationGracePeriodSeconds = 9
on_disconnect = "stop"
env = { LEVEL = "3" }
[resources.requests]
cpu = "250m"
memory = "64Mi"
[resources.limits]
cpu = "0.5"
memory = "128Mi"
pids = 100
[[ports]]
name = "http"
hostPort = 8080
"""
YAML = """
name: web
namespace: shop
replicas: 3
command: [/bin/sh, -c, exec sleep 60]
restartPolicy: OnFailure
backoffLimit: 2
terminationGracePeriodSeconds: 9
on_disconnect: stop
env: {LEVEL: "3"}
resources:
  requests: {cpu: 250m, memory: 64Mi}
  limits: {cpu: 0.5, memory: 128Mi, pids: 100}
ports:
- {name: http, hostPort: 8080}
"""
JSON = """
{"name": "web", "namespace": "shop", "replicas": 3, "command": ["/bin/sh", "-c", "exec sleep 60"],
 "restartPolicy": "OnFailure", "backoffLimit": 2, "terminationGracePeriodSeconds": 9, "on_disconnect": "stop",
 "env": {"LEVEL": "3"}, "ports": [{"name": "http", "hostPort": 8080}],
 "resources": {"requests": {"cpu": "250m", "memory": "64Mi"},
  "limits": {"cpu": "500m", "memory": "128Mi", "pids": 100}}}
"""


def resolved(**fields: object) -> ResolvedJob:
    return resolve_object({"name": "web", "command": ["/bin/true"], **fields})


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("b.yaml", YAML), ("c.YML", YAML), ("d.json", JSON)])
def test_the_three_formats_say_the_same_job(name: str, text: str) -> None:
    job = load_job(text, name=name)
    assert (job.workload.namespace, job.workload.job, job.replicas) == ("shop", "web", 3)
    assert (job.cpu_millicores, job.memory_bytes, job.pids) == (250, 64 * MIB, 64)
    assert job.workload.limits == Limits(500, 128 * MIB, 100)
    assert job.workload.ports == (("http", 8080),)
    assert (job.restart_policy, job.backoff_limit) == ("OnFailure", 2)
    assert (job.workload.grace_s, job.workload.on_disconnect, job.workload.env) == (9, "stop", {"LEVEL": "3"})


def test_the_format_said_goes_before_the_ending() -> None:
    assert parse_job(JSON, name="job.toml", format="JSON").name == "web"


def test_a_byte_order_mark_is_read_over() -> None:
    assert parse_job(b"\xef\xbb\xbf" + JSON.encode(), name="a.json").name == "web"


def test_without_resources_a_job_books_the_documented_defaults() -> None:
    job = resolved()
    assert (job.cpu_millicores, job.memory_bytes, job.pids) == (100, 64 * MIB, 64)
    assert job.workload.limits == Limits(0, 0, 512)
    assert (job.replicas, job.workload.kind, job.workload.namespace) == (1, "service", "default")
    assert (job.workload.grace_s, job.workload.on_disconnect) == (5, "keep")


def test_requests_default_to_the_limits() -> None:
    job = resolved(resources={"limits": {"cpu": "50m", "memory": "32Mi", "pids": 16}})
    assert (job.cpu_millicores, job.memory_bytes, job.pids) == (50, 32 * MIB, 16)


def test_a_request_above_the_default_pids_limit_raises_that_limit() -> None:
    assert resolved(resources={"requests": {"pids": 2000}}).workload.limits.pids == 2000


def test_amounts_may_be_plain_numbers() -> None:
    job = resolved(resources={"requests": {"cpu": 2, "memory": 1048576}, "limits": {"cpu": 2.5}})
    assert (job.cpu_millicores, job.memory_bytes, job.workload.limits.cpu_millicores) == (2000, MIB, 2500)


@pytest.mark.parametrize(
    ("fields", "policy", "limit"),
    [
        ({}, "Always", -1),
        ({"kind": "service"}, "Always", -1),
        ({"kind": "batch"}, "OnFailure", 6),
        ({"kind": "batch", "restartPolicy": "Never"}, "Never", 6),
        ({"kind": "batch", "backoffLimit": 0}, "OnFailure", 0),
        ({"restartPolicy": "Never", "backoffLimit": 0}, "Never", 0),
        ({"backoffLimit": 3}, "Always", 3),
    ],
)
def test_restarts_default_by_kind(fields: dict[str, object], policy: str, limit: int) -> None:
    job = resolved(**fields)
    assert (job.restart_policy, job.backoff_limit) == (policy, limit)


def test_the_environment_is_ordered_so_that_equal_jobs_are_equal_bytes() -> None:
    assert list(resolved(env={"B": "1", "A": "2"}).workload.env) == ["A", "B"]


def test_a_yaml_date_stays_text() -> None:
    job = load_job("name: web\ncommand: [echo, 2026-01-02]", format="yaml")
    assert job.workload.command == ("echo", "2026-01-02")


def test_where_a_job_may_go_and_how_urgent_it_is() -> None:
    job = resolved(
        priority=-3,
        nodeSelector={"zone": "b", "disk": "ssd"},
        tolerations=[{"key": "dedicated", "value": "db", "effect": "NoSchedule"}, {"operator": "Exists"}],
    )
    assert (job.priority, job.node_selector) == (-3, (("disk", "ssd"), ("zone", "b")))
    assert job.tolerations == (
        Toleration("dedicated", "Equal", "db", "NoSchedule"),
        Toleration("", "Exists", "", ""),
    )
    plain = resolved()
    assert (plain.priority, plain.node_selector, plain.tolerations) == (0, (), ())
