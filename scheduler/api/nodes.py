"""Nodes: list, show, cordon, uncordon, label, taint.

Owns: the shapes of these calls; what is committed of a node joined with what only the replica
that holds its session knows.  Must not know: agents.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from cluster.http import Call
from scheduler.api.services import WRITE_S, Services, holders
from scheduler.commands import Labels, SetNodeLabels, SetNodeState, SetNodeTaints
from scheduler.errors import NodeNotFound, RefusedByState
from scheduler.model import LABELS_MAX, NAME_PATTERN, TAINTS_MAX, LabelKey, LabelValue, NodeState, Taint, TaintEffect


class LabelCall(Struct, forbid_unknown_fields=True):
    """Labels to give, and keys of given ones to take back."""

    put: Labels = {}
    remove: Annotated[tuple[LabelKey, ...], Meta(max_length=LABELS_MAX)] = ()


class TaintPut(Struct, forbid_unknown_fields=True):
    """One taint."""

    key: LabelKey
    effect: TaintEffect
    value: LabelValue = ""


class TaintRemove(Struct, forbid_unknown_fields=True):
    """A given taint to take back; without an effect, every one of the key."""

    key: LabelKey
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class TaintCall(Struct, forbid_unknown_fields=True):
    """Taints to give, and given ones to take back."""

    put: Annotated[tuple[TaintPut, ...], Meta(max_length=TAINTS_MAX)] = ()
    remove: Annotated[tuple[TaintRemove, ...], Meta(max_length=TAINTS_MAX)] = ()


class Nodes:
    """Handlers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def ls(self, call: Call) -> dict[str, Any]:
        """All nodes."""
        await self._services.fresh(call.query)
        held = holders(await self._services.rows())
        state = self._services.state
        return {"v": 1, "index": state.index, "nodes": join_all(state.nodes(), held)}

    async def show(self, call: Call) -> dict[str, Any]:
        """One node with what is on it."""
        node = _node_path(call)
        await self._services.fresh(call.query)
        found = self._services.state.node(node)
        if found is None:
            raise _unknown(node)
        held = holders(await self._services.rows())
        return {"v": 1, "index": self._services.state.index, **_joined(found, held)}

    async def cordon(self, call: Call) -> dict[str, Any]:
        """Take a node out of placement; what runs there goes on."""
        return await self._set_state(_node_path(call), NodeState.CORDONED)

    async def uncordon(self, call: Call) -> dict[str, Any]:
        """Take a node back in."""
        return await self._set_state(_node_path(call), NodeState.READY)

    async def label(self, call: Call) -> dict[str, Any]:
        """Give a node labels, or take given ones back."""
        node, body = _node_path(call), call.body
        command = SetNodeLabels(node, body.put, body.remove, self._services.wall_ms())
        return await self._marked(node, command)

    async def taint(self, call: Call) -> dict[str, Any]:
        """Taint a node, or take given taints back; NoExecute stops what does not tolerate it."""
        node, body = _node_path(call), call.body
        put = tuple(Taint(taint.key, taint.value, taint.effect) for taint in body.put)
        remove = tuple((taint.key, taint.effect) for taint in body.remove)
        return await self._marked(node, SetNodeTaints(node, put, remove, self._services.wall_ms()))

    async def _marked(self, node: str, command: SetNodeLabels | SetNodeTaints) -> dict[str, Any]:
        applied = await self._services.door.propose(command, timeout_s=WRITE_S)
        result = applied.result
        if result.code == "no-such-node":
            raise _unknown(node)
        if result.code:
            raise RefusedByState(result.code, result.message, result.hint)
        return {"v": 1, "node": node, "index": result.index, "outcome": result.outcome}

    async def _set_state(self, node: str, state: NodeState) -> dict[str, Any]:
        command = SetNodeState(node, state.value, self._services.wall_ms())
        applied = await self._services.door.propose(command, timeout_s=WRITE_S)
        result = applied.result
        if result.code == "no-such-node":
            raise _unknown(node)
        if result.code:
            raise RefusedByState(result.code, result.message, result.hint)
        return {"v": 1, "node": node, "state": state.value, "index": result.index, "outcome": result.outcome}


def join_all(nodes: list[dict[str, Any]], held: dict[str, tuple[str, tuple[int, int]]]) -> list[dict[str, Any]]:
    """Committed rows with who holds the session, and usage."""
    return [_joined(node, held) for node in nodes]


def _joined(node: dict[str, Any], held: dict[str, tuple[str, tuple[int, int]]]) -> dict[str, Any]:
    session, usage = held.get(node["id"], (None, (0, 0)))
    used = None if session is None else {"cpu_ns": usage[0], "memory_bytes": usage[1]}
    return {**node, "session": session, "connected": session is not None, "used": used}


_NODE = re.compile(NAME_PATTERN)


def _node_path(call: Call) -> str:
    node = call.path["node"]
    if not _NODE.fullmatch(node):
        raise _unknown(node[:64])
    return node


def _unknown(node: str) -> NodeNotFound:
    return NodeNotFound(f"there is no node {node}", hint="see `skerry node ls`", node=node)
