"""From a profile to the configuration that production processes take.

Owns: addresses, tokens and directories inside the simulation, and which setting each number of a profile becomes.
Must not know: the simulated machines, or how processes are started.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agents.settings import AgentSettings
from chaos.sim.swarm.profile import Profile
from cluster.settings import (
    ClusterSection,
    Config,
    LeaseSection,
    LinksSection,
    RaftSection,
    ReplicaSection,
    SecuritySection,
    TraceSection,
)
from scheduler.taints import parse_taint

LINKS_PORT: Final = 7100
API_PORT: Final = 7200
LINK_TOKEN: Final = "simulated-link-token"  # noqa: S105  of a network that does not exist
API_TOKEN: Final = "simulated-api-token"  # noqa: S105
DATA: Final = "/data"
TRACE: Final = "/trace"
HEARTBEAT_SAMPLE: Final = 20
DIGEST_EVERY: Final = 64
PING_MS: Final = 1_000
PROPOSAL_TIMEOUT_MS: Final = 3_000
USAGE_MS: Final = 5_000


def links_address(name: str) -> str:
    """Where a replica is dialed by replicas and agents: its host is named after it."""
    return f"{name}:{LINKS_PORT}"


def api_address(name: str) -> str:
    """Where a replica serves its API."""
    return f"{name}:{API_PORT}"


def replica_config(profile: Profile, name: str) -> Config:
    """The configuration of one replica."""
    raft, lease = profile.raft, profile.lease
    return Config(
        cluster=ClusterSection(name="sim"),
        replica=ReplicaSection(
            id=name,
            dir=DATA,
            listen_links=links_address(name),
            listen_api=api_address(name),
            peers={each: links_address(each) for each in profile.replica_names},
            api_peers={each: api_address(each) for each in profile.replica_names},
        ),
        raft=RaftSection(
            election_timeout_ms=raft.election_timeout_ms,
            proposal_timeout_ms=PROPOSAL_TIMEOUT_MS,
            read_timeout_ms=PROPOSAL_TIMEOUT_MS,
            max_inflight_messages=raft.max_inflight_messages,
            snapshot_entries=raft.snapshot_entries,
            snapshot_chunk_bytes=raft.snapshot_chunk_bytes,
            keep_tail_entries=raft.keep_tail_entries,
            segment_bytes=raft.segment_bytes,
            digest_every=DIGEST_EVERY,
        ),
        lease=LeaseSection(duration_ms=lease.duration_ms, drift_ppm=lease.drift_ppm, delta_ms=lease.delta_ms),
        security=SecuritySection(link_token=LINK_TOKEN, api_token=API_TOKEN),
        trace=TraceSection(dir=TRACE, heartbeat_sample=HEARTBEAT_SAMPLE),
        links=LinksSection(ping_ms=PING_MS),
    )


def agent_settings(profile: Profile, name: str) -> AgentSettings:
    """The settings of one agent; its replicas are in an order of its own, so that not all dial the same one."""
    number = profile.agent_names.index(name)
    node = profile.nodes[number]
    turn = number % len(profile.replica_names)
    order = (*profile.replica_names[turn:], *profile.replica_names[:turn])
    return AgentSettings(
        node=name,
        directory=Path(DATA),
        cluster="sim",
        replicas=tuple(links_address(each) for each in order),
        token=LINK_TOKEN,
        address=name,
        cpu_millicores=node.cpu_millicores,
        memory_bytes=node.memory_bytes,
        pids=4_096,
        labels=node.labels,
        taints=tuple(parse_taint(text) for text in node.taints),
        cgroups="v2",
        heartbeat_s=profile.lease.heartbeat_ms / 1000,
        usage_s=USAGE_MS / 1000,
        trace_directory=Path(TRACE),
        heartbeat_sample=HEARTBEAT_SAMPLE,
    )
