#!/usr/bin/env -S python3 -I -S
"""The health checks of the containers; exits 0 when it is well.

``health replica``: this replica knows a leader and has applied all that it knows to be committed (GET /readyz).
``health node ID ADDRESS…``: a replica at one of the addresses says that node ID is ready and its session held.
``health proxy``: the chaos proxy serves.

It runs every few seconds in every container, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import socket
import sys

TIMEOUT_S = 2.0
API = "127.0.0.1:7200"
CHAOS_API = "127.0.0.1:8474"


def get(address: str, path: str) -> bytes | None:
    """The body of an answer with status 200, else None; says why."""
    host, _, port = address.rpartition(":")
    with open(os.environ.get("SKERRY_CREDENTIALS", "/run/skerry") + "/token", encoding="ascii") as file:
        token = file.read().strip()
    head = f"GET {path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            connection.sendall(head.encode())
            while part := connection.recv(65536):
                answer += part
    except OSError as error:
        print(f"{address}: {error}")
        return None
    status, _, rest = answer.partition(b"\r\n")
    body = rest.partition(b"\r\n\r\n")[2]
    if status.split()[1:2] != [b"200"]:
        print(f"{address}: {status.decode()} {body[:300].decode()}")
        return None
    return body


def node_is_well(node: str, addresses: list[str]) -> bool:
    """Whether some replica calls the node ready and knows who holds its session."""
    for address in addresses:
        if body := get(address, f"/v1/nodes/{node}?stale=true"):
            found = json.loads(body)
            print(address, found["state"], found["session"])
            if found["state"] == "ready" and found["session"]:
                return True
    return False


def main(arguments: list[str]) -> int:
    """Check what the first argument names; the exit code."""
    match arguments:
        case ["replica"]:
            well = get(API, "/readyz") is not None
        case ["proxy"]:
            well = get(CHAOS_API, "/version") is not None
        case ["node", node, *addresses]:
            well = node_is_well(node, addresses)
        case _:
            print(__doc__)
            return 2
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
