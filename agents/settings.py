"""The agent's settings as it uses them: checked, in its own units.

Owns: taking them from the configuration and refusing what cannot work.
Must not know: where a value came from, or what is done with it.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from cluster.config import Loaded
from cluster.errors import ConfigError
from scheduler.model import Taint
from scheduler.taints import check_labels, parse_taint
from scheduler.units import UnitError


class AgentSettings(Struct, frozen=True, kw_only=True):
    """Everything one agent process needs to know from outside."""

    node: str
    directory: Path
    cluster: str
    replicas: tuple[str, ...]
    """Link addresses, ``host:port``; any of them may hold the session."""
    token: str
    address: str = "127.0.0.1"
    cpu_millicores: int = 0
    memory_bytes: int = 0
    pids: int = 0
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    cgroup_root: str = ""
    cgroups: str = "auto"
    bridge_subnet: str = ""
    workload_users: str = ""
    stop_workloads_on_exit: bool = False
    heartbeat_s: float = 1.0
    confirm_timeout_s: float = 0.0
    """0 = a third of the lease."""
    usage_s: float = 1.0
    trace_directory: Path | None = None
    trace_roll_bytes: int = 64 << 20
    heartbeat_sample: int = 50


def settings_from(loaded: Loaded) -> AgentSettings:
    """Settings of this process; raises `cluster.errors.ConfigError` for what is missing."""
    loaded.require("agent.id", "agent.dir", "agent.replicas", "security.link_token")
    config = loaded.config
    agent, trace = config.agent, config.trace
    try:
        key = "agent.labels"
        check_labels(agent.labels)
        key = "agent.taints"
        taints = tuple(parse_taint(text) for text in agent.taints)
    except UnitError as error:
        raise ConfigError(f"{key}: {error}", hint=error.hint, key=key, origin=loaded.origin(key)) from None
    return AgentSettings(
        node=agent.id,
        directory=Path(agent.dir).absolute(),
        cluster=config.cluster.name,
        replicas=agent.replicas,
        token=config.security.link_token,
        address=agent.address,
        cpu_millicores=agent.cpu_millicores,
        memory_bytes=agent.memory_bytes,
        pids=agent.pids,
        labels=dict(sorted(agent.labels.items())),
        taints=taints,
        cgroup_root=agent.sandbox_root,
        cgroups=agent.cgroups,
        bridge_subnet=agent.bridge_subnet,
        workload_users=agent.workload_users,
        stop_workloads_on_exit=agent.stop_workloads_on_exit,
        heartbeat_s=agent.heartbeat_ms / 1000,
        confirm_timeout_s=agent.confirm_timeout_ms / 1000,
        usage_s=agent.usage_ms / 1000,
        trace_directory=Path(trace.dir) if trace.dir else None,
        trace_roll_bytes=trace.roll_bytes,
        heartbeat_sample=trace.heartbeat_sample,
    )
