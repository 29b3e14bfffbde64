"""The words that records and refusals use, inside and outside.

Owns: their spelling.  Must not know: anything.
"""

from __future__ import annotations

from typing import Final

# Life of one record, as seen from outside.
STARTING: Final = "starting"
RUNNING: Final = "running"
STOPPING: Final = "stopping"
EXITED: Final = "exited"

# Refusals.
STALE_EPOCH: Final = "stale-epoch"
EPOCH_BUSY: Final = "epoch-busy"
SPEC_CHANGED: Final = "spec-changed"
JOURNAL_FAILED: Final = "journal-failed"
SHUTTING_DOWN: Final = "shutting-down"
BAD_REQUEST: Final = "bad-request"
PROTOCOL_MISMATCH: Final = "protocol-version"
NOT_EXITED: Final = "not-exited"
NO_LEASE: Final = "no-lease"
