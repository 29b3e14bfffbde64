"""The tables of attempts and jobs."""

from __future__ import annotations

import itertools

import pytest

from scheduler.lifecycle import (
    BACKOFF_MAX_MS,
    ENDED,
    LIVE,
    TRANSITIONS,
    Happening,
    JobState,
    backoff_ms,
    happening_of,
    job_state,
    next_state,
    starts_again,
)
from scheduler.model import AllocationState, Exit, RestartPolicy

S = AllocationState


def test_every_state_is_live_or_ended() -> None:
    assert sorted(LIVE + ENDED) == sorted(S)


@pytest.mark.parametrize("state", ENDED)
def test_nothing_happens_to_an_ended_attempt(state: AllocationState) -> None:
    assert [next_state(state, happening) for happening in Happening] == [None] * len(Happening)


@pytest.mark.parametrize(("state", "happening"), list(itertools.product(LIVE, Happening)))
def test_a_live_attempt_has_an_answer_to_everything(state: AllocationState, happening: Happening) -> None:
    assert next_state(state, happening) is TRANSITIONS[state, happening]


def test_an_ordered_stop_is_never_taken_back() -> None:
    after = {next_state(S.STOPPING, happening) for happening in Happening}
    assert after == {S.STOPPING, S.STOPPED, S.LOST, S.UNKNOWN}  # unknown keeps its `stop_index`: AttemptTable.standing


def test_an_attempt_never_returns_to_placed() -> None:
    assert S.PLACED not in TRANSITIONS.values()


@pytest.mark.parametrize(
    ("end", "happening"),
    [
        (Exit(0, None, "exited", True), Happening.SUCCEEDED),
        (Exit(1, None, "exited", True), Happening.BROKE),
        (Exit(None, None, "exited", False), Happening.BROKE),
        (Exit(0, None, "exited", False), Happening.BROKE),
        (Exit(None, 9, "signaled", True), Happening.BROKE),
        (Exit(None, 9, "oom", True), Happening.BROKE),
        (Exit(0, None, "oom", True), Happening.BROKE),
        (Exit(None, None, "start-failed", False), Happening.BROKE),
        (Exit(None, 15, "stopped", True), Happening.WAS_STOPPED),
        (Exit(None, None, "lost", False), Happening.VANISHED),
        (Exit(None, None, "something-new", False), Happening.BROKE),
    ],
)
def test_only_a_known_exit_code_of_zero_is_success(end: Exit, happening: Happening) -> None:
    assert happening_of(end) is happening


@pytest.mark.parametrize(
    ("policy", "ended", "failures", "limit", "again"),
    [
        ("Always", S.COMPLETE, 0, -1, True),
        ("Always", S.FAILED, 1_000_000, -1, True),
        ("Always", S.FAILED, 4, 3, False),
        ("Always", S.LOST, 9, 3, True),
        ("OnFailure", S.COMPLETE, 0, 6, False),
        ("OnFailure", S.FAILED, 6, 6, True),
        ("OnFailure", S.FAILED, 7, 6, False),
        ("OnFailure", S.FAILED, 1, 0, False),
        ("OnFailure", S.LOST, 0, 6, True),
        ("OnFailure", S.STOPPED, 0, 6, True),
        ("Never", S.COMPLETE, 0, 6, False),
        ("Never", S.FAILED, 1, 6, False),
        ("Never", S.LOST, 0, 6, False),
    ],
)
def test_the_restart_policy_decides_whether_it_starts_again(
    policy: str, ended: AllocationState, failures: int, limit: int, again: bool
) -> None:
    assert starts_again(RestartPolicy(policy), ended, failures, limit) is again


def test_the_back_off_doubles_from_one_second_to_thirty() -> None:
    assert [backoff_ms(n) for n in range(8)] == [0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
    assert backoff_ms(10**9) == BACKOFF_MAX_MS


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ({"waiting": 3}, JobState.PENDING),
        ({"running": 2, "waiting": 1, "live": 2}, JobState.PENDING),
        ({"live": 3}, JobState.STARTING),
        ({"live": 3, "running": 2}, JobState.STARTING),
        ({"live": 3, "running": 3}, JobState.RUNNING),
        ({"live": 1, "running": 1, "complete": 2}, JobState.RUNNING),
        ({"complete": 3}, JobState.COMPLETE),
        ({"complete": 2, "broken": 1}, JobState.FAILED),
        ({"live": 2, "running": 2, "broken": 1}, JobState.DEGRADED),
        ({"stopped": True, "live": 1}, JobState.STOPPING),
        ({"stopped": True}, JobState.STOPPED),
        ({"replicas": 0}, JobState.RUNNING),
        ({"replicas": 0, "batch": True}, JobState.COMPLETE),
        ({"replicas": 0, "live": 1}, JobState.STOPPING),
    ],
)
def test_a_job_has_one_word_for_its_counts(counts: dict[str, int], word: JobState) -> None:
    values = {
        "replicas": 3,
        "live": 0,
        "running": 0,
        "waiting": 0,
        "complete": 0,
        "broken": 0,
        "stopped": False,
    } | counts
    assert job_state(**values) is word  # type: ignore[arg-type]
