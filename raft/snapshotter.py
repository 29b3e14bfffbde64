"""Snapshots of one replica: when one is taken, and carrying out what the core wants done with files.

Owns: the trigger, freezing, jobs for the snapshot threads and what follows from them.  Must not know: threads, the
event loop, the layout of files, or which rule wanted a piece.

At most one own snapshot is written, one piece taken and one piece a peer read at a time; what comes beside that is
dropped, which the core's questions repair.  So a slow or dead receiver holds one piece of memory, and no more.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

from raft.apply import Applier
from raft.core import Core, CoreConfig
from raft.counters import Counters
from raft.effects import Installed, Restore, SendChunk, TakeChunk, TakeSnapshot
from raft.errors import StoreError
from raft.events import ChunkTaken, Event, SnapshotLost, SnapshotReceived, SnapshotTaken
from raft.lanes import Job, LaneName
from raft.messages import Snapshot, SnapshotChunk
from raft.observe import Reporter
from raft.protocols import Clock, Frozen, StateMachine, Transport
from raft.store.log_store import LogStore
from raft.store.snapshots import SnapshotDamaged

RETRY_NS = 10_000_000_000
"""After a snapshot found no room on the disk, the next is tried this much later."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Interrupted(Exception):
    """The replica stops: nobody needs the snapshot at hand."""


class Snapshotter:
    """Between the core's effects and the files of one replica.

    `held`: no own snapshot is begun, because the state is wrong.
    """

    def __init__(
        self,
        *,
        core: Core,
        config: CoreConfig,
        store: LogStore,
        transport: Transport,
        clock: Clock,
        machine: StateMachine,
        applier: Applier,
        counters: Counters,
        report: Reporter,
        step: Callable[[Event], None],
    ) -> None:
        self._core = core
        self._config = config
        self._store = store
        self._transport = transport
        self._clock = clock
        self._machine = machine
        self._applier = applier
        self._counters = counters
        self._report = report
        self._step = step
        self._jobs: list[Job] = []
        self._frozen: Frozen | None = None
        self._taking = False
        self._reading: dict[str, SendChunk] = {}
        self._wanted_after: int | None = None
        self._not_before_ns = 0
        self.held = False
        self._closing = False

    def recover(self) -> None:
        """Restore the state machine from the snapshot that the log goes on from."""
        snapshot = self._core.snapshot
        if snapshot is not None:
            self._restore(snapshot, "snapshot-install")
        for name in self._store.snapshots.damaged:
            self._report.note(f"the snapshot file {name} is damaged; the one before it and the log stand for it")

    def jobs(self) -> list[Job]:
        """What is to be run now, each job in its lane; each must come back to `done`."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def done(self, job: Job) -> None:
        """A job ended; raises what must end the replica."""
        job.then(job)

    def interrupt(self) -> None:
        """The replica stops: have a snapshot that is being written end soon."""
        self._closing = True

    # -- own snapshots -----------------------------------------------------------------------------

    def consider(self) -> None:
        """Take a snapshot if enough was applied since the last one; called between two applications."""
        core, index = self._core, self._applier.index
        if self.held or self._frozen is not None or not self._due(index) or self._clock.now_ns() < self._not_before_ns:
            return
        if core.durable_index < index:
            return  # a snapshot never runs ahead of the own log
        self._wanted_after = None
        started_ns = self._clock.now_ns()
        frozen = self._frozen = self._machine.freeze()
        self._counters.freezes.observe(self._clock.now_ns() - started_ns)
        header = core.describe_snapshot(index)
        snapshots = self._store.snapshots
        self._add(LaneName.OWN, lambda: snapshots.write(header, self._unless_closing(frozen.chunks())), self._written)

    @property
    def idle(self) -> bool:
        """Whether no own snapshot is being written."""
        return self._frozen is None

    def want(self, effect: TakeSnapshot) -> None:
        """Somebody needs a snapshot: take one soon, however little was applied since the last."""
        self._wanted_after = effect.after

    def _due(self, index: int) -> bool:
        core, config = self._core, self._config
        since = core.snapshot.index if core.snapshot is not None else 0
        if index <= since:
            return False
        return (
            (self._wanted_after is not None and index > self._wanted_after)
            or index - since >= config.snapshot_entries
            or core.log.bytes_between(max(since, core.log.base_index), index) >= config.snapshot_log_bytes
        )

    def _unless_closing(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._closing:
                raise Interrupted
            yield chunk

    def _written(self, job: Job) -> None:
        assert self._frozen is not None, "a snapshot was being written"
        self._frozen.release()
        self._frozen = None
        if job.error is None:
            snapshot: Snapshot = job.result
            self._counters.snapshots += 1
            self._report.snapshot("snapshot-write", snapshot, job.took_ns)
            self._step(SnapshotTaken(self._clock.now_ns(), snapshot))
            self._tidy()
        elif not isinstance(job.error, Interrupted):
            self._unless_full(job.error, "no snapshot can be written")
            self._not_before_ns = self._clock.now_ns() + RETRY_NS

    def _tidy(self) -> None:
        """Remove what no snapshot, transfer or log needs."""
        held = self._store.snapshots.held
        needed = [snapshot.id for snapshot in held if self._core.is_sending(snapshot.id)]
        self._add(LaneName.OWN, lambda: self._store.tidy(needed), self._tidied)

    def _tidied(self, job: Job) -> None:
        if job.error is not None:
            raise job.error
        self._counters.segments_removed += job.result

    # -- to followers ------------------------------------------------------------------------------

    def send_chunk(self, effect: SendChunk) -> None:
        """Read a piece and send it; not while one for the same peer is being read."""
        if effect.to in self._reading:
            return
        self._reading[effect.to] = effect
        snapshots = self._store.snapshots
        self._add(
            LaneName.PEERS,
            lambda: snapshots.read(effect.snapshot, effect.offset, effect.bytes_max),
            lambda job: self._read(effect, job),
        )

    def _read(self, effect: SendChunk, job: Job) -> None:
        del self._reading[effect.to]
        if not self._core.is_sending(effect.snapshot):
            return  # it ended meanwhile, and its file may be gone
        if isinstance(job.error, SnapshotDamaged):
            self._report.note(f"{job.error.message}; another one is taken")
            self._wanted_after = 0
            self._step(SnapshotLost(self._clock.now_ns(), effect.snapshot))
        elif job.error is not None:
            raise job.error
        elif job.result:
            self._counters.chunks_sent += 1
            self._transport.send(effect.to, SnapshotChunk(effect.term, effect.snapshot, effect.offset, job.result))

    # -- from the leader ---------------------------------------------------------------------------

    def take_chunk(self, effect: TakeChunk) -> None:
        """Write a piece down, unless one is being written."""
        if self._taking:
            return
        self._taking = True
        chunk, snapshots = effect.chunk, self._store.snapshots
        self._add(LaneName.PEERS, lambda: snapshots.take(chunk), lambda job: self._took(chunk, job))

    def _took(self, chunk: SnapshotChunk, job: Job) -> None:
        self._taking = False
        if job.error is not None:
            self._unless_full(job.error, "a snapshot cannot be received")
            return
        self._counters.chunks_taken += 1
        offset, snapshot = job.result
        if snapshot is not None:
            self._step(SnapshotReceived(self._clock.now_ns(), snapshot))
        else:
            self._step(ChunkTaken(self._clock.now_ns(), chunk.snapshot, offset))

    def restore(self, effect: Restore) -> None:
        """The core gave its log, or its state alone, up for this snapshot."""
        self._restore(effect.snapshot, "state-refetch" if self.held else "snapshot-install")
        self._counters.installed += 1
        if self.held:
            self._tidy()

    def installed(self, effect: Installed) -> None:
        """The log on disk begins behind the snapshot: what came before may go."""
        self._report.installed(effect)
        self._tidy()

    def _restore(self, snapshot: Snapshot, operation: str) -> None:
        started_ns = self._clock.now_ns()
        self._applier.restored(snapshot.index)
        self._machine.restore(snapshot.index, snapshot.term, self._store.snapshots.chunks(snapshot))
        self._report.snapshot(operation, snapshot, self._clock.now_ns() - started_ns)

    # -- jobs --------------------------------------------------------------------------------------

    def _add(self, lane: LaneName, work: Callable[[], Any], then: Callable[[Job], None]) -> None:
        self._jobs.append(Job(lane, work, then))

    def _unless_full(self, error: BaseException, what: str) -> None:
        """A full disk is told and outlived; any other failure of the disk ends the replica."""
        if not isinstance(error, OSError):
            raise error
        if error.errno not in _FULL:
            raise StoreError(f"{what}: {error}", hint="check the disk, then restart the replica") from error
        self._report.note(f"{what}: the disk is full")
