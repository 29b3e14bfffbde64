"""Applying SubmitJob and StopJob.

Owns: request ids, compare-and-set on the version, and what a new specification does to the
attempts of the one before.  Must not know: placement.

A change of anything but `replicas` and `priority` is a new *shape*: live attempts are stopped, and each
allocation is placed anew once its node reported the exit (recreate per allocation).
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from msgspec.structs import astuple, replace

from scheduler.commands import StopJob, SubmitJob
from scheduler.model import NO_RULES, ResolvedJob, job_id
from scheduler.state.books import Books
from scheduler.state.jobs import ALLOCATIONS_MAX, JOBS_MAX, JobRecord, Request
from scheduler.state.results import Change, JobResult


def submit(books: Books, index: int, command: SubmitJob) -> JobResult:
    """Create or replace a job; idempotent by (namespace, job, request id)."""
    workload = command.job.workload
    name = job_id(workload.namespace, workload.job)
    digest = _digest("submit", [_body(command.job), command.expected_version])
    job = books.jobs.get(name)
    repeated = _repeated(job, name, command.request_id, digest, index)
    if repeated is not None:
        return repeated
    refused = _version_conflict(job, name, command.expected_version, index) or _too_many(books, job, command.job, index)
    if refused is not None:
        return refused
    if job is not None and not job.stopped and job.spec == command.job:
        outcome = "unchanged"
    else:
        outcome = "created" if job is None else "replaced"
        job = _put(books, job or books.jobs.create(command.job), command.job, index, created=job is None)
    return _granted(books, job, index, command, digest, outcome)


def stop(books: Books, index: int, command: StopJob) -> JobResult:
    """Stop a job: a stop record for every live attempt."""
    name = job_id(command.namespace, command.name)
    digest = _digest("stop", [name])
    job = books.jobs.get(name)
    repeated = _repeated(job, name, command.request_id, digest, index)
    if repeated is not None:
        return repeated
    if job is None:
        return JobResult(
            index=index, job=name, code="no-such-job", message=f"there is no job {name}", hint="see `skerry job ls`"
        )
    outcome = "unchanged" if job.stopped else "stopped"
    if not job.stopped:
        job.stopped = True
        job.waiting.clear()
        books.jobs.note_waiting(job)
        books.order_stops(job, 0, index)
    return _granted(books, job, index, command, digest, outcome)


def _put(books: Books, job: JobRecord, spec: ResolvedJob, index: int, *, created: bool) -> JobRecord:
    old_replicas = 0 if created else job.replicas
    same_shape = not created and not job.stopped and _shape(job.spec) == _shape(spec)
    job.version += 1
    job.put(spec)
    job.submitted_index = index
    job.stopped = False
    books.jobs.replicas_total += spec.replicas - old_replicas
    if not same_shape:
        job.shape_version = job.version
    _settle(books, job, index, old_replicas=old_replicas, same_shape=same_shape)
    return job


def _settle(books: Books, job: JobRecord, index: int, *, old_replicas: int, same_shape: bool) -> None:
    """Stop what is of another shape or surplus, and queue what is wanted."""
    books.order_stops(job, job.replicas if same_shape else 0, index)
    for ordinal in books.idle(job, job.replicas, len(job.newest)):
        books.forget(job, ordinal)
        job.waiting.discard(ordinal)
    if old_replicas == 0 and job.live == 0:
        job.waiting.clear()
        job.waiting.add_range(0, job.replicas)
    else:
        for ordinal in books.idle(job, old_replicas if same_shape else 0, job.replicas):
            books.reconsider(job, ordinal)
    books.jobs.note_waiting(job)


def _shape(spec: ResolvedJob) -> ResolvedJob:
    """A specification without what running attempts need not be stopped for."""
    return replace(spec, replicas=0, priority=0)


def _granted(
    books: Books, job: JobRecord, index: int, command: SubmitJob | StopJob, digest: bytes, outcome: str
) -> JobResult:
    job.remember(command.request_id, Request(digest, index, job.version, outcome))
    books.jobs.save(job)
    books.note_finished(job, command.time_ms)
    change: Change = ("job", {
        "do": "submit" if isinstance(command, SubmitJob) else "stop", "index": index, "job": job.id,
        "version": job.version, "request_id": command.request_id, "outcome": outcome,
    })  # fmt: skip
    return JobResult(index=index, job=job.id, version=job.version, outcome=outcome, changes=(change,))


def _repeated(job: JobRecord | None, name: str, request_id: str, digest: bytes, index: int) -> JobResult | None:
    first = None if job is None else job.requests.get(request_id)
    if first is None:
        return None
    if first.digest != digest:
        return JobResult(
            index=index,
            job=name,
            code="request-id-reused",
            message=f"request id {request_id} was used for another request on {name}, at index {first.index}",
            hint="use a new request id for a new request; repeat an old one with the same body only",
        )
    return JobResult(index=first.index, job=name, version=first.version, outcome=first.outcome, repeated=True)


def _version_conflict(job: JobRecord | None, name: str, expected: int, index: int) -> JobResult | None:
    version = 0 if job is None else job.version
    if expected < 0 or expected == version:
        return None
    return JobResult(
        index=index,
        job=name,
        version=version,
        code="version-conflict",
        message=f"{name} is at version {version}, not {expected}",
        hint="read the job again and repeat with its version, or leave expected_version out",
    )


def _too_many(books: Books, job: JobRecord | None, spec: ResolvedJob, index: int) -> JobResult | None:
    total = books.jobs.replicas_total - (0 if job is None else job.replicas) + spec.replicas
    if total <= ALLOCATIONS_MAX and (job is not None or len(books.jobs) < JOBS_MAX):
        return None
    return JobResult(
        index=index,
        job=job_id(spec.workload.namespace, spec.workload.job),
        code="too-many-allocations",
        message=f"that would be {total} allocations in {len(books.jobs)} jobs",
        hint=f"at most {ALLOCATIONS_MAX} allocations and {JOBS_MAX} jobs are kept; stop jobs that are not needed",
    )


def _body(job: ResolvedJob) -> list[object]:
    """What a submission says; a field that it leaves out does not change digests from before there was one."""
    fields = list(astuple(job))
    return fields[:-1] if job.rules == NO_RULES else fields


def _digest(kind: str, body: list[object]) -> bytes:
    encoded = msgspec.msgpack.encode([kind, body], order="deterministic")
    return blake2b(encoded, digest_size=16).digest()
