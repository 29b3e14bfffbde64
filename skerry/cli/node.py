"""``skerry node ls|show|cordon|uncordon|label|taint|untaint``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from scheduler.model import TaintEffect
from scheduler.taints import parse_label, parse_taint
from scheduler.units import UnitError
from skerry.cli.common import Target, amount, call, print_json, print_table, target_options
from skerry.errors import UsageError

T = TypeVar("T")


@click.group()
def node() -> None:
    """List, show, cordon, label, taint nodes."""


@node.command("ls")
@target_options
def list_nodes(target: Target) -> int:
    """List all nodes with what they offer and what is booked."""
    answer = call(target, lambda client: client.nodes())
    if target.output == "json":
        print_json(answer)
    else:
        print_table(
            ("node", "state", "capacity", "allocated", "isolation", "taints"),
            [
                [
                    n["id"],
                    n["state"],
                    amount(n["capacity"]),
                    amount(n["allocated"]),
                    n["isolation"]["level"],
                    ", ".join(n["taints"]),
                ]
                for n in answer["nodes"]
            ],
        )
    return 0


@node.command("show")
@click.argument("name")
@target_options
def show_node(target: Target, name: str) -> int:
    """Show one node: capacity, bookings and use (with -o json its allocations too)."""
    answer = call(target, lambda client: client.node(name))
    if target.output == "json":
        print_json(answer)
        return 0
    print(f"node {answer['id']}: {answer['state']}, isolation {answer['isolation']['level']}")
    if answer["isolation"].get("why"):
        print(f"  {answer['isolation']['why']}")
    print(f"capacity   {amount(answer['capacity'])}")
    print(f"allocated  {amount(answer['allocated'])}")
    print(f"labels     {', '.join(f'{key}={value}' for key, value in answer['labels'].items())}")
    print(f"taints     {', '.join(answer['taints']) or 'none'}")
    used = answer.get("used")
    print(f"used       {amount(used) if used else 'not reported yet'}")
    return 0


@node.command("cordon")
@click.argument("name")
@target_options
def cordon_node(target: Target, name: str) -> int:
    """Place nothing new on the node; what runs there runs on."""
    return _set(target, name, on=True)


@node.command("uncordon")
@click.argument("name")
@target_options
def uncordon_node(target: Target, name: str) -> int:
    """Take the node back into placement."""
    return _set(target, name, on=False)


@node.command("label")
@click.argument("name")
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@target_options
def label_node(target: Target, name: str, labels: tuple[str, ...]) -> int:
    """Give the node labels (KEY=VALUE), or take given ones back (KEY-)."""
    put = dict(_parsed(parse_label, text) for text in labels if not text.endswith("-"))
    remove = [text[:-1] for text in labels if text.endswith("-")]
    answer = call(target, lambda client: client.label(name, put=put, remove=remove))
    return _told(target, name, answer)


@node.command("taint")
@click.argument("name")
@click.argument("taints", nargs=-1, required=True, metavar="KEY[=VALUE]:EFFECT...")
@target_options
def taint_node(target: Target, name: str, taints: tuple[str, ...]) -> int:
    """Keep work off the node that does not tolerate the taint.

    EFFECT is NoSchedule, PreferNoSchedule, or NoExecute, which also stops what runs there.
    """
    parsed = [_parsed(parse_taint, text) for text in taints]
    put = [{"key": taint.key, "value": taint.value, "effect": taint.effect.value} for taint in parsed]
    answer = call(target, lambda client: client.taint(name, put=put))
    return _told(target, name, answer)


@node.command("untaint")
@click.argument("name")
@click.argument("taints", nargs=-1, required=True, metavar="KEY[:EFFECT]...")
@target_options
def untaint_node(target: Target, name: str, taints: tuple[str, ...]) -> int:
    """Take given taints back; without EFFECT, every one of the key."""
    remove = []
    for text in taints:
        key, _, effect = text.partition(":")
        if effect and effect not in tuple(TaintEffect):
            raise UsageError(f"{effect!r} is no effect", hint=f"use one of {', '.join(TaintEffect)}, or leave it out")
        remove.append({"key": key.partition("=")[0], "effect": effect})
    answer = call(target, lambda client: client.taint(name, remove=remove))
    return _told(target, name, answer)


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except UnitError as error:
        raise UsageError(str(error), hint=error.hint) from None


def _told(target: Target, name: str, answer: dict[str, Any]) -> int:
    if target.output == "json":
        print_json(answer)
    else:
        print(f"node {name}: {answer['outcome']}")
    return 0


def _set(target: Target, name: str, *, on: bool) -> int:
    answer = call(target, lambda client: client.cordon(name, on=on))
    if target.output == "json":
        print_json(answer)
    else:
        print(f"node {name}: {'cordoned' if on else 'ready'}")
    return 0
