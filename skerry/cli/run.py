"""``skerry run`` and ``skerry stop``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from scheduler import jobfile
from scheduler.model import JobSpec
from skerry.cli.common import Target, call, exit_words, print_json, progress, target_options
from skerry.client import Client, new_request_id
from skerry.errors import JobFailed, NotPlaced, UsageError

POLL_S = 0.2
FINAL_STATES = {"complete", "failed", "stopped"}


@click.command("run")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--request-id", help="Name this submission; the same id asked again is the same job.")
@click.option("--wait/--no-wait", "wait", default=False, help="Wait until a service runs, or a batch is complete.")
@click.option(
    "--wait-timeout",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="Seconds to wait.",
)
@target_options
def run_job(target: Target, file: Path, request_id: str | None, wait: bool, wait_s: float) -> int:
    """Submit the job FILE (TOML, YAML or JSON).

    Exit codes: 0 done; 1 refused, or with --wait the job failed; 3 accepted, but not placed in
    time; 4 no leader; 6 unknown: ask again with the same --request-id.
    """
    spec = read_job_file(file)
    request = request_id or new_request_id()
    body: dict[str, Any] = msgspec.to_builtins(spec)
    answer = call(target, lambda client: submit_and_wait(client, body, request, wait, wait_s))
    answer["request_id"] = request
    if target.output == "json":
        print_json(answer)
    else:
        print(
            f"job {answer['job']} version {answer['version']} committed at index {answer['index']}: {answer['state']}"
        )
    return 0


async def submit_and_wait(
    client: Client, body: dict[str, Any], request_id: str, wait: bool, wait_s: float
) -> dict[str, Any]:
    """Submit, then with `wait` poll until the job is where its kind should be.

    Raises:
        NotPlaced: the time is up; the message says what the job waits for.
        JobFailed: the job ended in state ``failed``.
    """
    answer = await client.submit(body, request_id=request_id)
    if not wait:
        return answer
    progress(f"job {answer['job']} accepted at index {answer['index']}; waiting for it")
    last = ""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                shown = await client.job(answer["job"])
                answer["state"] = shown["state"]
                if (line := _tally(shown)) != last:
                    progress(f"  {line}")
                    last = line
                if _arrived(shown, body):
                    break
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        explained = await client.explain(answer["job"])
        raise NotPlaced(
            f"job {answer['job']} was accepted at index {answer['index']}, but after {wait_s:g} s it is {last}",
            hint=f"{explained.get('reason')}; `skerry explain {answer['job']}` says more",
            job=answer["job"],
            index=answer["index"],
        ) from None
    if answer["state"] == "failed":
        ends = sorted({exit_words(a.get("exit")) for a in shown["allocations"] if a["state"] == "failed"})
        raise JobFailed(f"job {answer['job']} failed: {', '.join(ends)}", hint=f"see `skerry logs {answer['job']}`")
    return answer


def _arrived(shown: dict[str, Any], body: dict[str, Any]) -> bool:
    if shown["state"] in FINAL_STATES:
        return True
    running = sum(1 for a in shown["allocations"] if a["state"] == "running")
    wanted: int = body["replicas"]
    return body["kind"] == "service" and running >= wanted


def _tally(shown: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for allocation in shown["allocations"]:
        counts[allocation["state"]] = counts.get(allocation["state"], 0) + 1
    parts = [f"{n} {state}" for state, n in sorted(counts.items())]
    return f"{shown['state']} ({', '.join(parts) or 'nothing placed yet'})"


def read_job_file(file: Path) -> JobSpec:
    """The job of a file.

    Raises:
        UsageError: the file cannot be read.
        JobFileError: its content is wrong; the message names the field.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read((256 << 10) + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint="pass the path of a job file") from None
    spec = jobfile.parse_job(data, name=file.name)
    jobfile.resolve(spec)  # units and contradictions are refused here too, before anything is sent
    return spec


@click.command("stop")
@click.argument("job")
@click.option("--request-id", help="Name this call; the same id asked again is the same stop.")
@target_options
def stop_job(target: Target, job: str, request_id: str | None) -> int:
    """Stop every allocation of JOB (name, or namespace/name)."""
    answer = call(target, lambda client: client.stop(job, request_id=request_id))
    if target.output == "json":
        print_json(answer)
    else:
        print(f"job {answer['job']}: stop committed at index {answer['index']}")
    return 0
