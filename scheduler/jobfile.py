"""Job files: checked field by field, then resolved to what the log carries.

Owns: the rules beyond the schema of `scheduler.model.JobSpec`, the defaults, and saying what
is wrong where.  Must not know: nodes, or whether the job would fit anywhere.

Defaults:
  requests           each resource: the limit, if there is one; else cpu 100m, memory 64Mi, pids 64
  limits             cpu, memory: none; pids: 512, or the request if that is more
  restartPolicy      service: Always; batch: OnFailure
  backoffLimit       service: none; batch: 6 failed attempts per allocation
  namespace          default
  network            bridge where the node has one, else host; bridge if a containerPort differs from its hostPort
A service may set a backoffLimit too; with restartPolicy Never it would mean nothing and is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from scheduler.errors import JobFileError
from scheduler.jobrules import resolve_rules
from scheduler.jobtext import check_plain, parse_text
from scheduler.model import (
    Affinity,
    JobSpec,
    LabelSelector,
    Limits,
    NeighbourTerm,
    NodeAffinity,
    NodeTerm,
    Port,
    Requirement,
    ResolvedJob,
    Resources,
    ResourceSet,
    RestartPolicy,
    SpreadConstraint,
    Toleration,
    Workload,
    WorkloadAffinity,
)
from scheduler.units import UnitError, format_cpu, format_memory, parse_cpu_millicores, parse_memory_bytes, whole_number

DEFAULT_CPU_MILLICORES: Final = 100
DEFAULT_MEMORY_BYTES: Final = 64 << 20
DEFAULT_PIDS: Final = 64
DEFAULT_PIDS_LIMIT: Final = 512
DEFAULT_BACKOFF_LIMIT: Final = {"service": -1, "batch": 6}
TEXT_BYTES_MAX: Final = 128 << 10
"""Command and environment together; the kernel's own bound for one argument is of this size."""

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.A)
_PATH: Final = re.compile(r" - at (?:`key` in )?`(?:key in )?\$?([^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")


def parse_job(text: str | bytes, *, name: str | None = None, format: str | None = None) -> JobSpec:
    """A job file's text, checked.

    Args:
        text: the file.
        name: its name; the ending (.toml, .yaml, .yml, .json) tells the format.
        format: ``toml``, ``yaml`` or ``json``, instead of the ending.

    Raises:
        JobFileError: what is wrong, with ``details["field"]``.
    """
    return _spec(parse_text(text, name=name, format=format))


def job_from_object(value: object) -> JobSpec:
    """The same for a job that arrived as JSON in an API call."""
    if not isinstance(value, Mapping):
        raise JobFileError("a job is an object with fields", hint='begin with {"name": "my-job"}', field="")
    check_plain(value)
    return _spec(value)


def load_job(text: str | bytes, *, name: str | None = None, format: str | None = None) -> ResolvedJob:
    """`parse_job`, then `resolve`."""
    return resolve(parse_job(text, name=name, format=format))


def resolve_object(value: object) -> ResolvedJob:
    """`job_from_object`, then `resolve`."""
    return resolve(job_from_object(value))


def resolve(spec: JobSpec) -> ResolvedJob:
    """Work out units and defaults.

    Raises:
        JobFileError: a rule that spans fields is broken.
    """
    _check_command(spec)
    _check_environment(spec)
    _check_ports(spec.ports)
    _check_network(spec)
    limits, requests = _amounts(spec.resources)
    policy = spec.restart_policy or _default_policy(spec.kind)
    _check_policy(spec, policy)
    _check_tolerations(spec.tolerations)
    workload = Workload(
        job=spec.name,
        namespace=spec.namespace,
        kind=spec.kind,
        command=spec.command,
        env=dict(sorted(spec.env.items())),
        limits=limits,
        ports=tuple((port.name, port.host_port) for port in spec.ports),
        grace_s=spec.termination_grace_period_seconds,
        on_disconnect=spec.on_disconnect,
        network=_network(spec),
        container_ports=tuple(_container_port(port) for port in spec.ports) if _translates(spec) else (),
    )
    backoff = DEFAULT_BACKOFF_LIMIT[spec.kind] if spec.backoff_limit is None else spec.backoff_limit
    return ResolvedJob(
        workload,
        spec.replicas,
        *requests,
        policy,
        backoff,
        spec.priority,
        tuple(sorted(spec.node_selector.items())),
        spec.tolerations,
        resolve_rules(spec),
    )


def _spec(value: Mapping[str, Any]) -> JobSpec:
    try:
        return msgspec.convert(_quantities_as_text(value), JobSpec, strict=True)
    except msgspec.ValidationError as error:
        raise _explained(str(error), value) from None


def _quantities_as_text(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Allow ``cpu: 2``, ``cpu: 0.5`` and ``memory: 1048576`` without quotes, as Kubernetes does."""
    resources = value.get("resources")
    if not isinstance(resources, Mapping):
        return value
    spelt = {part: _spelt(amounts) for part, amounts in resources.items()}
    return {**value, "resources": spelt}


def _spelt(amounts: object) -> object:
    if not isinstance(amounts, Mapping):
        return amounts
    return {
        name: str(amount) if name in ("cpu", "memory") and type(amount) in (int, float) else amount
        for name, amount in amounts.items()
    }


def _explained(message: str, value: object) -> JobFileError:
    """Turn a validation message into field, message and hint."""
    where = _PATH.search(message)
    text = message[: where.start()] if where else message
    path = where.group(1).lstrip(".") if where else ""
    if unknown := _UNKNOWN.match(text):
        field = unknown.group(1)
        full = f"{path}.{field}" if path else field
        return JobFileError(f"{full} is no field of a job", hint=_nearest(field, path), field=full)
    if missing := _MISSING.match(text):
        field = missing.group(1)
        full = f"{path}.{field}" if path else field
        return JobFileError(f"{full} is missing", hint=_HINTS.get(field, "add it"), field=full)
    if path.endswith("[...]"):
        path = _located(path, value)
    wrong = text[0].lower() + text[1:].replace("`", "")
    return JobFileError(f"{path or 'the job'}: {wrong}", hint=_hint(path), field=path)


_HINTS: Final = {
    "name": "add a name of small letters, digits and hyphens, such as: name: my-job",
    "namespaces": "write a list of names of small letters, digits and hyphens",
    "namespace": "use small letters, digits and hyphens, 63 at most",
    "kind": "use service (runs until stopped) or batch (runs until it has finished)",
    "command": 'add the program and its arguments as a list, such as: command: ["/bin/sleep", "60"]',
    "replicas": "use a whole number from 0 to 100000",
    "env": 'write names with text values, such as: env: {LEVEL: "3"}',
    "cpu": "write cores or millicores, such as 2, 0.5 or 250m",
    "memory": "write bytes with a suffix, such as 64Mi, 1Gi or 500M",
    "pids": "use a whole number from 1 to 4194304",
    "ports": "write a list such as: ports: [{name: http, hostPort: 8080}]",
    "hostPort": "use a whole number from 1 to 65535",
    "containerPort": "use a whole number from 1 to 65535",
    "network": "use host, none or bridge",
    "restartPolicy": "use Always, OnFailure or Never",
    "backoffLimit": "use a whole number from 0 to 1000",
    "terminationGracePeriodSeconds": "use whole seconds from 0 to 3600",
    "on_disconnect": "use keep or stop",
    "priority": "use a whole number from -1000000000 to 1000000000; higher is placed first",
    "nodeSelector": 'write labels that a node must have, such as: nodeSelector: {disk: "ssd"}',
    "tolerations": "write a list such as: tolerations: [{key: dedicated, value: db, effect: NoSchedule}]",
    "operator": "use Equal (the default), Exists, Gt or Lt",
    "effect": "use NoSchedule, PreferNoSchedule or NoExecute, or leave it out for all three",
    "labels": 'write labels of the workloads, such as: labels: {app: "web"}',
    "affinity": "write nodeAffinity, podAffinity or podAntiAffinity, as in Kubernetes",
    "nodeAffinity": "write required… or preferredDuringSchedulingIgnoredDuringExecution, as in Kubernetes",
    "nodeSelectorTerms": "write terms such as: [{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]",
    "matchExpressions": "write a list such as: [{key: disk, operator: In, values: [ssd]}]",
    "values": 'write a list of label values, such as: values: ["ssd", "nvme"]',
    "weight": "use a whole number from 1 to 100",
    "topologyKey": "name the node label that tells domains apart, such as zone",
    "topologySpreadConstraints": "write a list: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]",
    "labelSelector": "write matchLabels or matchExpressions, such as: labelSelector: {matchLabels: {app: web}}",
    "maxSkew": "use a whole number from 1 on",
    "minDomains": "use a whole number from 1 on",
    "whenUnsatisfiable": "use DoNotSchedule (the default) or ScheduleAnyway",
    "resources": "write requests and limits, such as: resources: {requests: {cpu: 250m, memory: 64Mi}}",
    "requests": "write amounts such as: requests: {cpu: 250m, memory: 64Mi, pids: 64}",
    "limits": "write amounts such as: limits: {cpu: 250m, memory: 64Mi, pids: 64}",
}

_ALIASES: Final = {
    "image": "Skerry runs programs of the node, not images: use command",
    "args": "put the arguments into command",
    "limit": "it is called limits",
    "request": "it is called requests",
    "networkMode": "it is called network",
    "hostNetwork": 'write network: "host"',
    "port": "it is called hostPort",
    "tolerationSeconds": "work that does not tolerate a NoExecute taint is stopped at once; there is no delay",
    "priorityClassName": "there are no classes: write the number as priority",
    "nodeName": 'use nodeSelector: {"skerry/node": "a1"}',
    "gpu": "GPUs cannot be requested; known fields here: cpu, memory, pids",
}


def _fields(kind: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


_FIELDS_BY_LAST: Final = {
    "": _fields(JobSpec),
    "resources": _fields(Resources),
    "requests": _fields(ResourceSet),
    "limits": _fields(ResourceSet),
    "ports": _fields(Port),
    "tolerations": _fields(Toleration),
    "affinity": _fields(Affinity),
    "nodeAffinity": _fields(NodeAffinity),
    "podAffinity": _fields(WorkloadAffinity),
    "podAntiAffinity": _fields(WorkloadAffinity),
    "nodeSelectorTerms": _fields(NodeTerm),
    "preference": _fields(NodeTerm),
    "matchExpressions": _fields(Requirement),
    "matchFields": _fields(Requirement),
    "labelSelector": _fields(LabelSelector),
    "namespaceSelector": _fields(LabelSelector),
    "podAffinityTerm": _fields(NeighbourTerm),
    "topologySpreadConstraints": _fields(SpreadConstraint),
}


def _last(path: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", path).rpartition(".")[2]


def _nearest(field: str, path: str) -> str:
    known = _FIELDS_BY_LAST.get(_last(path), [])
    folded = {name.lower().replace("_", ""): name for name in known}
    if field in _ALIASES:
        return _ALIASES[field]
    close = difflib.get_close_matches(field.lower().replace("_", "")[:64], list(folded), n=1, cutoff=0.6)
    if close:
        return f"did you mean {folded[close[0]]}?"
    elsewhere = [owner for owner, names in _FIELDS_BY_LAST.items() if field in names]
    if elsewhere:
        return f"{field} belongs " + (f"under {elsewhere[0]}" if elsewhere[0] else "to the job itself")
    return f"known fields here: {', '.join(known)}"


def _hint(path: str) -> str:
    parts = re.sub(r"\[[^\]]*\]", "", path).split(".")
    if parts[-1] == "operator" and parts[0] != "tolerations":
        return "use In, NotIn, Exists or DoesNotExist; for nodes also Gt or Lt"
    for part in reversed(parts):
        if part in _HINTS:
            return _HINTS[part]
    return "see the job file reference"


def _located(path: str, value: object) -> str:
    """Name the key that ``[...]`` of a mapping stands for, where one value is no good text."""
    owner = path[: -len("[...]")]
    mapping = value.get(owner) if isinstance(value, Mapping) else None
    if isinstance(mapping, Mapping):
        for key, inner in mapping.items():
            if not isinstance(inner, str) or len(inner) > 32_768:
                return f"{owner}.{key}"
    return owner


def _check_command(spec: JobSpec) -> None:
    if not spec.command[0]:
        raise JobFileError("command[0], the program, is empty", hint=_HINTS["command"], field="command[0]")
    size = sum(len(part.encode()) + 1 for part in spec.command)
    size += sum(len(name.encode()) + len(text.encode()) + 2 for name, text in spec.env.items())
    if size > TEXT_BYTES_MAX:
        raise JobFileError(
            f"command and env have {size} bytes, more than {TEXT_BYTES_MAX}",
            hint="pass large data in a file",
            field="command" if len("".join(spec.command)) > size // 2 else "env",
        )


def _check_environment(spec: JobSpec) -> None:
    for name in spec.env:
        if _ENV_NAME.fullmatch(name) is None or len(name) > 256:
            raise JobFileError(
                f"env.{name[:60]} is no name of an environment variable",
                hint="use letters, digits and underscores, not beginning with a digit",
                field=f"env.{name[:60]}",
            )
        if name.startswith("SKERRY_"):
            raise JobFileError(
                f"env.{name[:60]} is reserved", hint="names that begin with SKERRY_ are set by the agent",
                field=f"env.{name[:60]}",
            )  # fmt: skip


def _check_ports(ports: tuple[Port, ...]) -> None:
    names: dict[str, int] = {}
    numbers: dict[int, int] = {}
    for position, port in enumerate(ports):
        if port.name in names:
            raise JobFileError(
                f"ports[{position}].name {port.name!r} is taken by ports[{names[port.name]}]",
                hint="give each port its own name", field=f"ports[{position}].name",
            )  # fmt: skip
        if port.host_port in numbers:
            raise JobFileError(
                f"ports[{position}].hostPort {port.host_port} is taken by ports[{numbers[port.host_port]}]",
                hint="give each port its own number", field=f"ports[{position}].hostPort",
            )  # fmt: skip
        names[port.name] = numbers[port.host_port] = position


def _check_network(spec: JobSpec) -> None:
    if spec.network == "none" and spec.ports:
        raise JobFileError(
            "a job with network none can be reached at no port", hint="leave the ports out, or use network bridge",
            field="ports",
        )  # fmt: skip
    if spec.network != "host":
        return
    for position, port in enumerate(spec.ports):
        if _container_port(port) != port.host_port:
            raise JobFileError(
                f"ports[{position}].containerPort: a job with network host listens at hostPort itself",
                hint="leave containerPort out, or use network bridge",
                field=f"ports[{position}].containerPort",
            )


def _container_port(port: Port) -> int:
    return port.host_port if port.container_port is None else port.container_port


def _translates(spec: JobSpec) -> bool:
    return any(_container_port(port) != port.host_port for port in spec.ports)


def _network(spec: JobSpec) -> str:
    return spec.network or ("bridge" if _translates(spec) else "")


def _amounts(resources: Resources) -> tuple[Limits, tuple[int, int, int]]:
    """(limits, requests); requests in the order cpu, memory, pids."""
    asked, bound = resources.requests, resources.limits
    limit_cpu = _cpu(bound.cpu, "limits")
    limit_memory = _memory(bound.memory, "limits")
    cpu = _cpu(asked.cpu, "requests") or limit_cpu or DEFAULT_CPU_MILLICORES
    memory = _memory(asked.memory, "requests") or limit_memory or DEFAULT_MEMORY_BYTES
    pids = asked.pids or (min(bound.pids, DEFAULT_PIDS) if asked.pids is None and bound.pids else DEFAULT_PIDS)
    limit_pids = bound.pids or max(DEFAULT_PIDS_LIMIT, pids)
    _check_order("cpu", cpu, limit_cpu, format_cpu(cpu), format_cpu(limit_cpu))
    _check_order("memory", memory, limit_memory, format_memory(memory), format_memory(limit_memory))
    _check_order("pids", pids, limit_pids, str(pids), str(limit_pids))
    return Limits(limit_cpu, limit_memory, limit_pids), (cpu, memory, pids)


def _check_tolerations(tolerations: tuple[Toleration, ...]) -> None:
    for position, toleration in enumerate(tolerations):
        if toleration.operator == "Exists" and toleration.value:
            raise JobFileError(
                f"tolerations[{position}].value: Exists takes every value",
                hint="leave the value out, or use operator Equal", field=f"tolerations[{position}].value",
            )  # fmt: skip
        if toleration.operator in ("Gt", "Lt") and whole_number(toleration.value) is None:
            raise JobFileError(
                f"tolerations[{position}].value: {toleration.operator} compares whole numbers",
                hint='write the value as a number in quotes, such as value: "950"',
                field=f"tolerations[{position}].value",
            )
        if toleration.operator != "Exists" and not toleration.key:
            raise JobFileError(
                f"tolerations[{position}].key is missing",
                hint="name the taint's key; only operator Exists may leave it out, and then tolerates every key",
                field=f"tolerations[{position}].key",
            )


def _check_order(name: str, request: int, limit: int, request_text: str, limit_text: str) -> None:
    if limit and request > limit:
        raise JobFileError(
            f"resources.requests.{name} ({request_text}) is more than resources.limits.{name} ({limit_text})",
            hint="request at most the limit, or raise the limit",
            field=f"resources.requests.{name}",
        )


def _cpu(text: str | None, part: str) -> int:
    return _amount(text, f"resources.{part}.cpu", parse_cpu_millicores)


def _memory(text: str | None, part: str) -> int:
    return _amount(text, f"resources.{part}.memory", parse_memory_bytes)


def _amount(text: str | None, field: str, parse: Any) -> int:
    if text is None:
        return 0
    try:
        return int(parse(text))
    except UnitError as error:
        raise JobFileError(f"{field}: {error}", hint=error.hint, field=field) from None


def _default_policy(kind: str) -> RestartPolicy:
    return RestartPolicy.ALWAYS if kind == "service" else RestartPolicy.ON_FAILURE


def _check_policy(spec: JobSpec, policy: RestartPolicy) -> None:
    if spec.kind == "batch" and policy is RestartPolicy.ALWAYS:
        raise JobFileError(
            "a batch job that always restarts never finishes",
            hint="use restartPolicy OnFailure or Never, or kind service",
            field="restartPolicy",
        )
    if policy is RestartPolicy.NEVER and spec.backoff_limit:
        raise JobFileError(
            "backoffLimit says how often to restart, restartPolicy Never says not to",
            hint="leave backoffLimit out, or use restartPolicy OnFailure",
            field="backoffLimit",
        )
