"""The route table of the API, and the port that serves it.

Owns: paths, their scopes and types, and HTTP statuses of the scheduler's own codes.
Must not know: what a handler does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from cluster.errors import BadRequest
from cluster.http import Api, Call, HttpLimits, Route
from cluster.metrics import CONTENT_TYPE, Metrics
from cluster.network import Answer, ListenLimits
from cluster.problems import STATUSES, problem_answer, problem_of
from cluster.security import Authority, Scope
from cluster.settings import Config
from raft.errors import NoQuorum, OutcomeUnknown, SkerryError, StateDiverged
from scheduler.api.events import Events, EventsQuery
from scheduler.api.explain import Explain
from scheduler.api.jobs import Acknowledged, Jobs, StopCall, SubmitCall
from scheduler.api.logs import Logs, LogsQuery
from scheduler.api.nodes import LabelCall, Nodes, TaintCall
from scheduler.api.ready import Ready
from scheduler.api.services import ReadQuery, Services
from scheduler.api.status import Status
from scheduler.api.trace import MEDIA, TraceFiles, TraceQuery
from scheduler.errors import (
    AllocationNotFound,
    JobFileError,
    JobNotFound,
    NeverFits,
    NodeNotFound,
    NodeUnreachable,
    NotReady,
    TraceNotFound,
)

SCHEDULER_STATUSES: dict[str, int] = {
    "bad-job": 422,
    "never-fits": 422,
    "too-many-allocations": 422,
    "no-such-job": 404,
    "no-such-node": 404,
    "no-such-allocation": 404,
    "no-such-trace": 404,
    "version-conflict": 409,
    "request-id-reused": 409,
    "bad-node-state": 409,
    "bad-node-mark": 409,
    "node-unreachable": 503,
    "not-ready": 503,
    "bad-command": 500,
}

_READ = (NoQuorum,)
_WRITE = (NoQuorum, OutcomeUnknown, BadRequest)
_WITHOUT_STATE = ("/v1/status", "/v1/trace", "/v1/trace/{file}", "/metrics", "/healthz", "/readyz")
_PING = {"v": 1, "ok": True}


def problem(error: SkerryError, leader: str | None = None) -> Answer:
    """An error as an HTTP answer."""
    return problem_answer(problem_of(error, leader, STATUSES | SCHEDULER_STATUSES))


def routes(services: Services, events: Events, metrics: Metrics, trace: TraceFiles) -> list[Route]:
    """The table; what reads or changes the state is refused while the state here is not to be used."""
    table = _table(services, events, metrics, trace)
    return [route if route.path in _WITHOUT_STATE else _guarded(route, services.usable) for route in table]


def _guarded(route: Route, usable: Callable[[], None]) -> Route:
    handler = route.handler

    async def guarded(call: Call) -> Any:
        usable()
        return await handler(call)

    return replace(route, handler=guarded, errors=(*route.errors, StateDiverged))


def _table(services: Services, events: Events, metrics: Metrics, trace: TraceFiles) -> list[Route]:
    jobs, nodes = Jobs(services), Nodes(services)
    read: dict[str, Any] = {"query": ReadQuery, "returns": dict[str, Any], "errors": _READ}
    change: dict[str, Any] = {"scope": Scope.SUBMIT, "returns": Acknowledged}

    async def metrics_text(call: Call) -> bytes:
        return metrics.render()

    async def healthz(call: Call) -> dict[str, Any]:
        return _PING

    job = "/v1/jobs/{namespace}/{name}"
    found = {**read, "errors": (*_READ, JobNotFound)}
    return [
        _get("/v1/status", Status(services).show, "How the cluster is; answers without a quorum too.", **_plain()),
        Route(
            method="POST", path="/v1/jobs", handler=jobs.submit, body=SubmitCall,
            summary="Create or replace a job; acknowledged once durable on a majority.",
            errors=(*_WRITE, JobFileError, NeverFits), **change,
        ),
        _get("/v1/jobs", jobs.ls, "All jobs.", **read),
        _get(job, jobs.show, "One job with its allocations.", **found),
        Route(
            method="POST", path=f"{job}/stop", handler=jobs.stop, body=StopCall, summary="Stop a job.",
            errors=(*_WRITE, JobNotFound), **change,
        ),
        _get("/v1/explain/{namespace}/{name}", Explain(services).show, "Why it is where it is, or waits.", **found),
        _get(
            "/v1/logs/{namespace}/{name}", Logs(services).show, "Output of an allocation or a job.",
            **{**found, "query": LogsQuery, "errors": (*_READ, JobNotFound, AllocationNotFound, NodeUnreachable)},
        ),
        _get("/v1/nodes", nodes.ls, "All nodes.", **read),
        _get("/v1/nodes/{node}", nodes.show, "One node with what is on it.", **{**read, "errors": (NodeNotFound,)}),
        *(
            Route(
                method="POST", path=f"/v1/nodes/{{node}}/{word}", handler=handler, summary=summary,
                scope=Scope.OPERATE, returns=dict[str, Any], errors=(*_WRITE, NodeNotFound),
            )
            for word, handler, summary in (
                ("cordon", nodes.cordon, "Take a node out of placement."),
                ("uncordon", nodes.uncordon, "Take a node back in."),
            )
        ),
        *(
            Route(
                method="POST", path=f"/v1/nodes/{{node}}/{word}", handler=handler, summary=summary, body=body,
                scope=Scope.OPERATE, returns=dict[str, Any], errors=(*_WRITE, NodeNotFound),
            )
            for word, handler, body, summary in (
                ("labels", nodes.label, LabelCall, "Give a node labels, or take given ones back."),
                ("taints", nodes.taint, TaintCall, "Taint a node, or take given taints back."),
            )
        ),
        _get(
            "/v1/events", events.stream, "Committed changes as JSON lines, as they happen.",
            query=EventsQuery, media="application/x-ndjson", stream=True,
        ),
        _get("/v1/trace", trace.ls, "The trace files that this replica can read.", **_plain()),
        _get(
            "/v1/trace/{file}", trace.stream, "One trace file, from ?offset= to its last whole line.",
            query=TraceQuery, media=MEDIA, stream=True, errors=(TraceNotFound,),
        ),
        _get("/metrics", metrics_text, "Prometheus metrics.", media=CONTENT_TYPE),
        _get("/healthz", healthz, "Whether this process serves.", returns=dict[str, Any], scope=Scope.PUBLIC),
        _get(
            "/readyz", Ready(services).show, "Whether this replica knows a leader and has applied what is committed.",
            errors=(NotReady,), **_plain(),
        ),
    ]  # fmt: skip


def _plain() -> dict[str, Any]:
    return {"returns": dict[str, Any]}


def _get(path: str, handler: Any, summary: str, **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, **more)


def make_api(
    config: Config, services: Services, events: Events, metrics: Metrics, leader: Callable[[], str | None]
) -> Api:
    """What answers on the API port."""
    http = config.http
    seconds = metrics.histogram("api_seconds", "API calls", ("method", "path", "status"))

    def observe(method: str, path: str, status: int, took_s: float) -> None:
        seconds.labels(method, path, str(status)).observe(took_s)

    return Api(
        routes(services, events, metrics, TraceFiles(Path(config.trace.dir) if config.trace.dir else None)),
        title="Skerry",
        version="1",
        authority=Authority({config.security.api_token: Scope.OPERATE}),
        leader=leader,
        statuses=SCHEDULER_STATUSES,
        limits=HttpLimits(
            body_bytes_max=http.body_bytes_max,
            body_timeout_s=http.body_timeout_ms / 1000,
            requests_max=http.requests_max,
        ),
        observe=observe,
    )


def api_limits(config: Config) -> ListenLimits:
    """Bounds of the API port."""
    http = config.http
    return ListenLimits(connections_max=http.connections_max, header_timeout_s=http.header_timeout_ms / 1000)
