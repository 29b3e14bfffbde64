"""The agent's arithmetic of leases."""

from __future__ import annotations

import pytest

from agents import lease

S = 1_000_000_000


def test_the_deadline_counts_from_the_send() -> None:
    assert lease.deadline_ns(5 * S, 10 * S) == 15 * S


@pytest.mark.parametrize(
    ("lease_ms", "configured", "pace"),
    [
        (10_000, (1.0, 0.0), (1.0, 10 / 3)),
        (1_000, (1.0, 0.0), (0.125, 1 / 3)),
        (1_000, (0.05, 0.9), (0.05, 0.9)),
        (0, (1.0, 0.0), (1.0, lease.CONFIRM_TIMEOUT_S)),
    ],
)
def test_renewals_come_several_times_a_lease_and_patience_is_a_third_of_it(
    lease_ms: int, configured: tuple[float, float], pace: tuple[float, float]
) -> None:
    assert lease.pace(lease_ms, *configured) == pytest.approx(pace)


def test_the_trace_hears_of_each_grant_and_a_sample_of_renewals() -> None:
    log = lease.LeaseLog(3)
    heard = [log.confirmed(at * S, (at + 10) * S, 1) for at in range(8)]
    assert heard == ["grant", "", "", "renew", "", "", "renew", ""]
    assert log.confirmed(30 * S, 40 * S, 1) == "grant", "the lease had run out"
    assert log.confirmed(31 * S, 41 * S, 2) == "grant", "another registration"
