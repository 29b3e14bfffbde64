"""The plan of a development cluster: names, ports, links, configuration files.

Owns: what is where in a `skerry dev` directory.  Must not know: processes.

```
DIR/plan.json              names, ports and the cluster's name; kept from run to run
DIR/dev.json               how to reach the running cluster; gone when it is down
DIR/token, DIR/link-token  credentials, readable by the owner alone
DIR/n1.toml … a1.toml, proxy.json
DIR/n1/ … DIR/a1/          data of one process
DIR/trace/*.jsonl          the run's trace
DIR/logs/*.log             what each process said
DIR/control.sock           kill, start, pause, resume, stop
```
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from skerry.errors import DevError

HOST = "127.0.0.1"
PORT_LOW, PORT_HIGH = 20_000, 31_000
"""Below the kernel's ephemeral range, so that a restarted process finds its port free."""
PORT_TRIES = 200
REPLICAS_DEFAULT, AGENTS_DEFAULT = 3, 4
REPLICAS_MAX = 9
AGENTS_MAX = 64


class Replica(Struct, frozen=True):
    """One replica's name and ports."""

    id: str
    links_port: int
    api_port: int


class Link(Struct, frozen=True):
    """One directed link: `source` dials `port`, the proxy carries it to `target`'s links port."""

    source: str
    target: str
    port: int

    @property
    def name(self) -> str:
        """The proxy's name."""
        return f"{self.source}~{self.target}"


class Plan(Struct, frozen=True):
    """A whole development cluster."""

    cluster: str
    replicas: tuple[Replica, ...]
    agents: tuple[str, ...]
    links: tuple[Link, ...]
    chaos_port: int
    agent_cpu_millicores: int
    agent_memory_bytes: int

    def links_of(self, source: str) -> dict[str, str]:
        """Target → address to dial, for one process."""
        return {link.target: f"{HOST}:{link.port}" for link in self.links if link.source == source}

    def apis(self) -> dict[str, str]:
        """Replica → API base URL."""
        return {r.id: f"http://{HOST}:{r.api_port}" for r in self.replicas}

    def process_names(self) -> list[str]:
        """Every process below the supervisor, in start order."""
        return ["proxy", *(r.id for r in self.replicas), *self.agents]


def make_plan(replicas: int, agents: int, cpu_millicores: int, memory_bytes: int) -> Plan:
    """Names and free ports for a new cluster.

    Raises:
        DevError: no run of free ports was found.
    """
    links = replicas * (replicas - 1) + agents * replicas
    ports = iter(free_ports(2 * replicas + links + 1))
    members = tuple(Replica(f"n{i}", next(ports), next(ports)) for i in range(1, replicas + 1))
    agent_ids = tuple(f"a{i}" for i in range(1, agents + 1))
    sources = [*(member.id for member in members), *agent_ids]
    pairs = [(source, member.id) for source in sources for member in members if source != member.id]
    return Plan(
        cluster=f"dev-{secrets.token_hex(3)}",
        replicas=members,
        agents=agent_ids,
        links=tuple(Link(source, target, next(ports)) for source, target in pairs),
        chaos_port=next(ports),
        agent_cpu_millicores=cpu_millicores,
        agent_memory_bytes=memory_bytes,
    )


def free_ports(count: int) -> list[int]:
    """`count` consecutive ports on which nothing listens now."""
    for _ in range(PORT_TRIES):
        low = PORT_LOW + secrets.randbelow(PORT_HIGH - PORT_LOW - count)
        ports = list(range(low, low + count))
        if all(port_is_free(port) for port in ports):
            return ports
    raise DevError(
        f"no {count} free ports in a row between {PORT_LOW} and {PORT_HIGH}",
        hint="stop programs that listen there, or ask for fewer replicas and agents",
    )


def port_is_free(port: int) -> bool:
    """Whether `port` can be bound on the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def load_or_make_plan(
    directory: Path, replicas: int | None, agents: int | None, cpu_millicores: int, memory_bytes: int
) -> Plan:
    """The plan kept in `directory`, or a new one; None = as many as it was made with, or the defaults.

    Raises:
        DevError: the directory holds a cluster of another shape, something else, or its ports are taken.
    """
    file = directory / "plan.json"
    if not file.exists():
        if directory.exists() and any(directory.iterdir()):
            raise DevError(
                f"{directory} is not empty and holds no development cluster",
                hint="pass an empty or new directory with --dir",
            )
        replicas = REPLICAS_DEFAULT if replicas is None else replicas
        agents = AGENTS_DEFAULT if agents is None else agents
        plan = make_plan(replicas, agents, cpu_millicores, memory_bytes)
        directory.mkdir(parents=True, exist_ok=True)
        write_private(file, json.dumps(msgspec.to_builtins(plan), indent=1))
        return plan
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    except msgspec.MsgspecError as error:
        raise DevError(f"{file} is damaged: {error}", hint="remove the directory to start anew") from None
    if replicas not in (None, len(plan.replicas)) or agents not in (None, len(plan.agents)):
        raise DevError(
            f"{directory} holds a cluster of {len(plan.replicas)} replicas and {len(plan.agents)} agents",
            hint=f"pass --replicas {len(plan.replicas)} --agents {len(plan.agents)}, or another --dir",
        )
    return plan


def taken_ports(plan: Plan) -> list[int]:
    """Ports of the plan on which something listens already."""
    ports = [p for r in plan.replicas for p in (r.links_port, r.api_port)]
    ports += [link.port for link in plan.links] + [plan.chaos_port]
    return [port for port in ports if not port_is_free(port)]


def write_files(directory: Path, plan: Plan, extra: dict[str, str]) -> None:
    """Write credentials and every process's configuration file; existing credentials are kept.

    Args:
        directory: the cluster's directory.
        plan: what to write.
        extra: configuration keys set for every process, dotted key → value as text.
    """
    for name in ("token", "link-token"):
        if not (directory / name).exists():
            write_private(directory / name, secrets.token_hex(32) + "\n")
    for sub in ("trace", "logs"):
        (directory / sub).mkdir(exist_ok=True)
    for member in plan.replicas:
        write_config(directory / f"{member.id}.toml", _replica_settings(directory, plan, member) | extra)
    for agent in plan.agents:
        write_config(directory / f"{agent}.toml", _agent_settings(directory, plan, agent) | extra)
    links_ports = {r.id: r.links_port for r in plan.replicas}
    proxies = [
        {"name": link.name, "listen": f"{HOST}:{link.port}", "upstream": f"{HOST}:{links_ports[link.target]}"}
        for link in plan.links
    ]
    write_private(directory / "proxy.json", json.dumps(proxies, indent=1))


def _common_settings(directory: Path, plan: Plan) -> dict[str, Any]:
    return {
        "cluster.name": plan.cluster,
        "security.link_token_file": str(directory / "link-token"),
        "security.api_token_file": str(directory / "token"),
        "trace.dir": str(directory / "trace"),
    }


def _replica_settings(directory: Path, plan: Plan, member: Replica) -> dict[str, Any]:
    return _common_settings(directory, plan) | {
        "replica.id": member.id,
        "replica.dir": str(directory / member.id),
        "replica.listen_links": f"{HOST}:{member.links_port}",
        "replica.listen_api": f"{HOST}:{member.api_port}",
        "replica.peers": plan.links_of(member.id) | {member.id: f"{HOST}:{member.links_port}"},
        "replica.api_peers": {r.id: f"{HOST}:{r.api_port}" for r in plan.replicas},
    }


def _agent_settings(directory: Path, plan: Plan, agent: str) -> dict[str, Any]:
    return _common_settings(directory, plan) | {
        "agent.id": agent,
        "agent.dir": str(directory / agent),
        "agent.replicas": list(plan.links_of(agent).values()),
        "agent.cpu": f"{plan.agent_cpu_millicores}m",
        "agent.memory": str(plan.agent_memory_bytes),
        "agent.stop_workloads_on_exit": True,
    }


def write_config(file: Path, settings: dict[str, Any]) -> None:
    """Write dotted settings as TOML, one table a section."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, []).append(f"{name} = {_toml(value)}")
    write_private(file, "\n\n".join(f"[{s}]\n" + "\n".join(lines) for s, lines in sections.items()) + "\n")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and arrays are spelt alike


def write_private(file: Path, text: str) -> None:
    """Replace `file` by `text`, readable by the owner alone."""
    temporary = file.with_name(file.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(file)
