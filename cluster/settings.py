"""Every setting of every process: its name, unit, default and limits.

Owns: the sections as checked structs; this file is the source of the configuration reference.
Must not know: where values come from (`cluster.config`) or what they are used for.

Values come from defaults < TOML file < environment ``SKERRY_<SECTION>_<KEY>`` < flags.  A key that
ends in ``_ms`` or ``_s`` takes a number in that unit or a duration ("150ms"), one that ends in
``_bytes`` a number or a size ("64MiB").  Addresses are ``host:port``; port 0 lets the kernel choose.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from cluster.quantities import cpu_millicores, size_bytes

SECRET_KEYS = frozenset({"security.link_token", "security.api_token"})
"""Never shown, logged or traced."""

TOKEN_PATTERN = r"^([\x21-\x7e]{8,512})?$"  # noqa: S105  a pattern, not a token
ID_PATTERN = r"^([a-z][a-z0-9-]{0,30})?$"
CLUSTER_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
_PORT = r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
ADDRESS_PATTERN = rf"^((\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):{_PORT})?$"
SUBNET_PATTERN = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/([89]|1[0-9]|2[0-8]))?$"
USERS_PATTERN = r"^(off|[0-9]{1,10}:[0-9]{1,10})?$"

Id = Annotated[str, Meta(pattern=ID_PATTERN, extra={"form": "a letter, then up to 30 of a-z, 0-9 and -"})]
Address = Annotated[str, Meta(pattern=ADDRESS_PATTERN, extra={"form": "host:port, such as 127.0.0.1:7101"})]
Token = Annotated[str, Meta(pattern=TOKEN_PATTERN, extra={"form": "8 to 512 printable characters without spaces"})]
Subnet = Annotated[str, Meta(pattern=SUBNET_PATTERN, extra={"form": "an IPv4 network, /8 to /28"})]

Users = Annotated[str, Meta(pattern=USERS_PATTERN, extra={"form": "FIRST:COUNT, such as 1879048192:65536, or off"})]


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the file."""


class ClusterSection(_Section, frozen=True):
    """Which cluster this process belongs to."""

    name: Annotated[
        str,
        Meta(
            pattern=CLUSTER_PATTERN,
            description="name of the cluster; processes of different names refuse each other",
            extra={"form": "a DNS label: up to 32 of a-z, 0-9 and -"},
        ),
    ] = "skerry"


class ReplicaSection(_Section, frozen=True):
    """A scheduler replica."""

    id: Annotated[Id, Meta(description="id of this replica, one of the keys of replica.peers")] = ""
    dir: Annotated[str, Meta(description="data directory: the log and the identity")] = ""
    listen_links: Annotated[Address, Meta(description="where replicas and agents dial in")] = "127.0.0.1:7100"
    listen_api: Annotated[Address, Meta(description="where the HTTP API is served")] = "127.0.0.1:7200"
    peers: Annotated[
        dict[Id, Address],
        Meta(description="all initial replicas, this one included: id to link address", max_length=15),
    ] = field(default_factory=dict)
    api_peers: Annotated[
        dict[Id, Address], Meta(description="id to API address, for hints to callers", max_length=15)
    ] = field(default_factory=dict)


class AgentSection(_Section, frozen=True):
    """A node agent."""

    id: Annotated[Id, Meta(description="id of this node")] = ""
    dir: Annotated[str, Meta(description="agent directory: sandboxer socket, journal, workload output")] = ""
    replicas: Annotated[
        tuple[Address, ...], Meta(description="link addresses of replicas; any may hold the session", max_length=64)
    ] = ()
    address: Annotated[str, Meta(description="address under which workloads of this node are reached")] = "127.0.0.1"
    cpu: Annotated[str, Meta(description="CPU offered, such as 4 or 3500m; empty = the machine's")] = ""
    memory: Annotated[str, Meta(description="memory offered, such as 8Gi; empty = the machine's")] = ""
    pids: Annotated[int, Meta(ge=0, le=4_194_304, description="processes offered; 0 = the machine's")] = 0
    labels: Annotated[
        dict[str, str], Meta(description="labels of this node, which nodeSelector asks for", max_length=64)
    ] = field(default_factory=dict)
    taints: Annotated[
        tuple[str, ...], Meta(description="taints of this node, each key=value:Effect", max_length=64)
    ] = ()
    sandbox_root: Annotated[str, Meta(description="cgroup to work under; empty = found by itself")] = ""
    cgroups: Annotated[
        Literal["auto", "v1", "hybrid", "v2", "none"], Meta(description="how limits are enforced on this machine")
    ] = "auto"
    bridge_subnet: Annotated[
        Subnet, Meta(description="addresses of workloads with a bridge network; empty = a free /22 of 10.192.0.0/10")
    ] = ""
    workload_users: Annotated[
        Users, Meta(description="users that root's workloads are outside their user namespaces; empty = unused ones")
    ] = ""
    stop_workloads_on_exit: Annotated[
        bool, Meta(description="stop all workloads and the sandboxer when the agent ends in order")
    ] = False
    heartbeat_ms: Annotated[int, Meta(ge=50, le=60_000, description="between renewals of the session")] = 1000
    usage_ms: Annotated[int, Meta(ge=50, le=60_000, description="between readings of what workloads use")] = 1000
    confirm_timeout_ms: Annotated[
        int,
        Meta(ge=0, le=600_000, description="without a confirmation this long, dial another; 0 = a third of a lease"),
    ] = 0

    @property
    def cpu_millicores(self) -> int:
        """CPU offered in thousandths; 0 = the machine's."""
        return cpu_millicores(self.cpu) if self.cpu else 0

    @property
    def memory_bytes(self) -> int:
        """Memory offered in bytes; 0 = the machine's."""
        return size_bytes(self.memory) if self.memory else 0


class RaftSection(_Section, frozen=True):
    """Consensus.  The election time-out T is drawn from [T, 2T]; heartbeats come every T/4."""

    election_timeout_ms: Annotated[int, Meta(ge=50, le=60_000, description="T: patience with a silent leader")] = 150
    proposal_timeout_ms: Annotated[int, Meta(ge=100, le=600_000, description="wait for a proposal's outcome")] = 10_000
    read_timeout_ms: Annotated[int, Meta(ge=100, le=600_000, description="wait for a confirmed read")] = 5_000
    max_inflight_messages: Annotated[int, Meta(ge=1, le=1024, description="appends in flight to one follower")] = 8
    max_inflight_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 30, description="bytes in flight to one follower")] = (
        8 << 20
    )
    max_message_bytes: Annotated[int, Meta(ge=1 << 12, le=4 << 20, description="entries of one append")] = 1 << 20
    uncommitted_bytes_max: Annotated[
        int, Meta(ge=1 << 16, le=1 << 32, description="past this, proposals are refused with overloaded")
    ] = 64 << 20
    log_entries_max: Annotated[int, Meta(ge=64, le=1 << 32, description="past this, log-full")] = 4_000_000
    log_bytes_max: Annotated[int, Meta(ge=1 << 20, le=1 << 40, description="past this, log-full")] = 4 << 30
    snapshot_log_bytes: Annotated[
        int, Meta(ge=1 << 12, le=1 << 40, description="take a snapshot once so much log was applied since the last")
    ] = 64 << 20
    snapshot_entries: Annotated[
        int, Meta(ge=16, le=1 << 32, description="take a snapshot once so many entries were applied since the last")
    ] = 50_000
    snapshot_chunk_bytes: Annotated[
        int, Meta(ge=1 << 10, le=1 << 20, description="largest piece of a snapshot sent at once")
    ] = 256 << 10
    keep_tail_entries: Annotated[
        int, Meta(ge=0, le=1 << 32, description="entries kept before a snapshot, for replicas a little behind")
    ] = 10_000
    digest_every: Annotated[
        int,
        Meta(ge=16, le=1 << 32, description="replicas compare their states at multiples of this index; same on all"),
    ] = 4096
    segment_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 30, description="size of one log segment file")] = 64 << 20


class LeaseSection(_Section, frozen=True):
    """Leases of nodes; the same on all replicas.  Agents learn the duration from the leader."""

    duration_ms: Annotated[
        int, Meta(ge=300, le=600_000, description="how long a renewal lasts; past it a node ends its `stop` workloads")
    ] = 10_000
    reconnect_allowance_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="a new leader waits at least this long for a node; 0 = 1.5 leases")
    ] = 0
    drift_ppm: Annotated[
        int, Meta(ge=0, le=100_000, description="how much two clocks' rates may differ, in millionths")
    ] = 1_000
    delta_ms: Annotated[int, Meta(ge=0, le=60_000, description="how late a node may be in ending a workload")] = 500


class SecuritySection(_Section, frozen=True):
    """Credentials.  Each is given as itself or as a file that holds it, not both."""

    link_token: Annotated[Token, Meta(description="shared by replicas and agents")] = ""
    link_token_file: Annotated[str, Meta(description="file with the link token")] = ""
    api_token: Annotated[Token, Meta(description="asked of every API call")] = ""
    api_token_file: Annotated[str, Meta(description="file with the API token")] = ""

    def __repr__(self) -> str:
        return "SecuritySection(***)"


class TraceSection(_Section, frozen=True):
    """The trace of this process."""

    dir: Annotated[str, Meta(description="directory of the trace; empty = off")] = ""
    heartbeat_sample: Annotated[int, Meta(ge=0, le=1_000_000, description="trace one in N heartbeats; 0 = none")] = 50
    roll_bytes: Annotated[int, Meta(ge=1 << 12, le=1 << 34, description="start another file past this")] = 64 << 20


class HttpSection(_Section, frozen=True):
    """Limits of the HTTP API."""

    body_bytes_max: Annotated[int, Meta(ge=1 << 10, le=64 << 20, description="largest body")] = 1 << 20
    header_timeout_ms: Annotated[int, Meta(ge=100, le=600_000, description="wait for a request's head")] = 10_000
    body_timeout_ms: Annotated[int, Meta(ge=100, le=600_000, description="wait for a request's body")] = 10_000
    connections_max: Annotated[int, Meta(ge=1, le=100_000, description="open connections")] = 1024
    requests_max: Annotated[int, Meta(ge=1, le=100_000, description="calls handled at once")] = 512


class LinksSection(_Section, frozen=True):
    """Limits of the links between replicas."""

    connections_max: Annotated[int, Meta(ge=4, le=100_000, description="open connections on the link port")] = 4096
    requests_max: Annotated[int, Meta(ge=1, le=100_000, description="requests of peers handled at once")] = 256
    ping_ms: Annotated[int, Meta(ge=50, le=1_000, description="between proofs that a link is alive")] = 250


class LogSection(_Section, frozen=True):
    """The log for people, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least severe shown")] = "info"
    format: Annotated[Literal["console", "json"], Meta(description="for people or for machines")] = "console"


class Config(_Section, frozen=True):
    """All settings."""

    cluster: ClusterSection = field(default_factory=ClusterSection)
    replica: ReplicaSection = field(default_factory=ReplicaSection)
    agent: AgentSection = field(default_factory=AgentSection)
    raft: RaftSection = field(default_factory=RaftSection)
    lease: LeaseSection = field(default_factory=LeaseSection)
    security: SecuritySection = field(default_factory=SecuritySection)
    trace: TraceSection = field(default_factory=TraceSection)
    http: HttpSection = field(default_factory=HttpSection)
    links: LinksSection = field(default_factory=LinksSection)
    log: LogSection = field(default_factory=LogSection)


class Key(Struct, frozen=True):
    """One setting, as a table of the reference needs it."""

    name: str
    section: str
    field: str
    type: Any
    default: Any
    description: str

    @property
    def environment(self) -> str:
        """The variable that sets it."""
        return f"SKERRY_{self.section}_{self.field}".upper()

    @property
    def form(self) -> str:
        """The allowed form in words; "" where the type says it."""
        return _extra(self.type, "form")


def _extra(annotated: Any, name: str) -> str:
    for meta in reversed(getattr(annotated, "__metadata__", ())):
        if isinstance(meta, Meta) and meta.extra and name in meta.extra:
            return str(meta.extra[name])
    return ""


def _description(annotated: Any) -> str:
    for meta in reversed(getattr(annotated, "__metadata__", ())):
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    return ""


def _section_keys(section: str, struct: type[Struct]) -> dict[str, Key]:
    keys = {}
    for item in msgspec.structs.fields(struct):
        default = item.default if item.default is not msgspec.NODEFAULT else item.default_factory()
        key = Key(f"{section}.{item.name}", section, item.name, item.type, default, _description(item.type))
        keys[key.name] = key
    return keys


def all_keys() -> dict[str, Key]:
    """Every setting by dotted name, in the order of this file."""
    keys: dict[str, Key] = {}
    for section in msgspec.structs.fields(Config):
        keys.update(_section_keys(section.name, section.type))
    return keys
