"""``skerry node ls|show|cordon|uncordon``."""

from __future__ import annotations

import click

from skerry.cli.common import Target, amount, call, print_json, print_table, target_options


@click.group()
def node() -> None:
    """List, show, cordon nodes."""


@node.command("ls")
@target_options
def list_nodes(target: Target) -> int:
    """List all nodes with what they offer and what is booked."""
    answer = call(target, lambda client: client.nodes())
    if target.output == "json":
        print_json(answer)
    else:
        print_table(
            ("node", "state", "capacity", "allocated", "isolation"),
            [
                [n["id"], n["state"], amount(n["capacity"]), amount(n["allocated"]), n["isolation"]["level"]]
                for n in answer["nodes"]
            ],
        )
    return 0


@node.command("show")
@click.argument("name")
@target_options
def show_node(target: Target, name: str) -> int:
    """Show one node: capacity, bookings, use, allocations."""
    answer = call(target, lambda client: client.node(name))
    if target.output == "json":
        print_json(answer)
        return 0
    print(f"node {answer['id']}: {answer['state']}, isolation {answer['isolation']['level']}")
    if answer["isolation"].get("why"):
        print(f"  {answer['isolation']['why']}")
    print(f"capacity   {amount(answer['capacity'])}")
    print(f"allocated  {amount(answer['allocated'])}")
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


def _set(target: Target, name: str, *, on: bool) -> int:
    answer = call(target, lambda client: client.cordon(name, on=on))
    if target.output == "json":
        print_json(answer)
    else:
        print(f"node {name}: {'cordoned' if on else 'ready'}")
    return 0
