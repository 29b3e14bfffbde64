"""The stage of the transcripts: replicas, their disks and the mail between them, moved by one-line commands.

Every command returns lines that tell what the production core decided.  One clock for all, in milliseconds; T is 100.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

from chaos.exhaustive.words import entry_told, told
from raft.core import Core, CoreConfig, Recovered
from raft.effects import (
    Apply,
    Effect,
    Persist,
    Restore,
    Role,
    Send,
    SendChunk,
    TakeChunk,
)
from raft.errors import ProtocolViolation
from raft.events import (
    ApplyDone,
    ChunkTaken,
    Digested,
    Event,
    HandOver,
    Persisted,
    Proposal,
    Proposed,
    ReadRequested,
    Received,
    SnapshotReceived,
    SnapshotTaken,
    StateDropped,
    Tick,
)
from raft.messages import HardState, Message, Snapshot, SnapshotChunk
from tests.support.raft_table import MS, FixedDice, T, log_of
from tests.support.stage_replica import Place
from tests.support.stage_words import configuration_shown, effect_shown, log_shown, written

SNAPSHOT_BYTES = 12

_IMPORTANT = (" leads ", " commits ", " configuration of entry ", " restores ", " step", "check-quorum", "hangs")


class Mistake(Exception):
    """A line of a transcript makes no sense."""


class Stage:
    """What commands change."""

    def __init__(self) -> None:
        self.now = 0
        self.config: dict[str, Any] = {}
        self.places: dict[str, Place] = {}
        self.mail: list[tuple[str, str, str, Message]] = []
        self.lines: list[str] = []
        self._calls = 0
        self._indent = ""

    def do(self, line: str) -> list[str]:
        """Carry one command out; returns what it led to."""
        self.lines = []
        verb, *words = line.split()
        command: Callable[..., None] | None = getattr(self, f"do_{verb.replace('-', '_')}", None)
        if command is None:
            raise Mistake(f"there is no command {verb!r}")
        command(*words)
        return self.lines

    # -- the cast ------------------------------------------------------------------------------

    def do_members(self, count: str, *options: str) -> None:
        """`members 3 [setting=number ...]`: so many formed replicas that hold entry 1, at rest."""
        names = [f"n{number}" for number in range(1, int(count) + 1)]
        self.config = {key: int(value) for key, _, value in (option.partition("=") for option in options)}
        self.places = {name: Place(name) for name in names}
        for name in names:
            self._holds(name, [1])

    def do_empty(self, count: str) -> None:
        """`empty 3`: so many replicas with empty disks."""
        self.places = {name: Place(name) for name in [f"n{number}" for number in range(1, int(count) + 1)]}
        for name in self.places:
            self._start(name)

    def do_log(self, name: str, *terms: str) -> None:
        """`log n1 1 1 2`: the replica begins with these terms in its log, all durable."""
        self._holds(name, [int(term) for term in terms])

    def do_term(self, name: str, term: str, *vote: str) -> None:
        """`term n1 3 [n2]`: the replica begins in this term, with its vote given to n2."""
        self.places[name].hard = HardState(int(term), vote[0] if vote else None)
        self._start(name)

    def _holds(self, name: str, terms: list[int]) -> None:
        place = self.places[name]
        place.disk, place.hard = log_of(self.places, terms), HardState(terms[-1], None)
        self._start(name)

    def _start(self, name: str) -> None:
        place = self.places[name]
        config = CoreConfig(
            id=name,
            store_id=place.store,
            peers=tuple(self.places),
            founds=place.founds,
            election_timeout_ns=T,
            **{"snapshot_chunk_bytes": 4, "keep_tail_entries": 0, **self.config},
        )
        recovered = Recovered(place.hard, place.disk, place.base, place.newest)
        place.core = Core(config, recovered, FixedDice(int(name[1:])), self.now)
        place.writes, place.held = [], []

    # -- time ----------------------------------------------------------------------------------

    def do_wait(self, ms: str) -> None:
        """`wait 50`: time goes by, and nobody notices yet."""
        self.now += int(ms) * MS

    def do_timeout(self, name: str) -> None:
        """`timeout n1`: time comes to the replica's election deadline, and it alone notices."""
        state = self._core(name)._state
        self.now = max(self.now, state.election_deadline_ns)
        self._step(name, Tick(self.now))

    def do_tick(self, name: str) -> None:
        """`tick n1`: time comes to whatever the replica waits for next."""
        self.now = max(self.now, self._core(name).next_deadline_ns())
        self._step(name, Tick(self.now))

    def do_beat(self, name: str) -> None:
        """`beat n1`: a quarter of T goes by, and the leader's heartbeat is due."""
        self.now += T // 4
        self._step(name, Tick(self.now))

    # -- callers -------------------------------------------------------------------------------

    def do_propose(self, name: str, *commands: str) -> None:
        """`propose n1 x y`: two commands, as one batch."""
        proposals = []
        for command in commands:
            self._calls += 1
            proposals.append(Proposal(self._calls, command.encode()))
        self._step(name, Proposed(self.now, tuple(proposals)))

    def do_read(self, name: str, read: str) -> None:
        """`read n1 7`: a linearizable read, number 7."""
        self._step(name, ReadRequested(self.now, (int(read),)))

    def do_hand_over(self, name: str, *to: str) -> None:
        """`hand-over n1 [n2]`: the leader is asked to let another one lead."""
        self._calls += 1
        self._step(name, HandOver(self.now, self._calls, to[0] if to else None))

    # -- states --------------------------------------------------------------------------------

    def do_digest(self, name: str, index: str, digest: str) -> None:
        """`digest n1 16 aa`: the replica's state at this index has that digest."""
        self._step(name, Digested(self.now, int(index), f"0:{digest}"))

    def do_give_up(self, name: str) -> None:
        """`give-up n1`: the state is applied to no more, and no snapshot of it is taken."""
        self._step(name, StateDropped(self.now))

    # -- disks ---------------------------------------------------------------------------------

    def do_persist(self, *names: str) -> None:
        """`persist n1 n2`: all writes in flight there (or everywhere) are done, one after the other."""
        for name in names or tuple(self.places):
            while self._core(name) and self.places[name].writes:
                self.do_persist_oldest(name)

    def do_persist_oldest(self, name: str) -> None:
        """`persist-oldest n1`: the oldest write in flight is done."""
        place = self.places[name]
        write = place.write()
        held, place.held = place.held, []
        term, index = place.end
        self._step(name, Persisted(self.now, write.write, term, index))
        for number, send in held:
            if number <= write.write:
                self._leaves(name, send.to, send.message)
            else:
                place.held.append((number, send))

    def do_crash(self, name: str) -> None:
        """`crash n1`: the power goes; writes in flight and what waited for them are lost, mail on the way is not."""
        place = self.places[name]
        for write in place.writes:
            self._say(f"{name} loses write {write.write}: {written(write)}")
        place.core, place.writes, place.held = None, [], []

    def do_restart(self, name: str) -> None:
        """`restart n1`: a process begins from what the disk holds."""
        self._start(name)
        self.do_show(name)

    def do_wipe(self, name: str, store: str) -> None:
        """`wipe n3 d`: the disk is lost; the replica begins with an empty one, store d."""
        place = self.places[name] = Place(name)
        place.store, place.founds = store.rjust(32, "0"), False
        self.mail = [each for each in self.mail if each[2] != name]
        self._start(name)

    def do_snapshot(self, name: str) -> None:
        """`snapshot n1`: a snapshot of what is applied becomes durable."""
        place, core = self.places[name], self._core(name)
        header = core.describe_snapshot(core.applied_index)
        snapshot = Snapshot(header, SNAPSHOT_BYTES, crc32(name.encode(), header.base.index))
        place.snapshots[snapshot.id] = place.newest = snapshot
        self._step(name, SnapshotTaken(self.now, snapshot))
        place.base = core.log.base
        place.disk = tuple([entry for entry in place.disk if entry.index > place.base.index])
        self.do_show(name)

    # -- mail ----------------------------------------------------------------------------------

    def do_deliver(self, *links: str) -> None:
        """`deliver [n1->n2 n1->* ...]`: what is on the way now arrives, on these links or on all."""
        for sender, store, to, message in self._taken(links):
            if self.places[to].core is not None:
                self._arrives(sender, store, to, message)

    def do_deliver_one(self, link: str) -> None:
        """`deliver-one n1->n2`: the first message on this link arrives, the others stay."""
        first, *rest = self._taken((link,))
        self.mail = rest + self.mail
        self._arrives(*first)

    def do_overtake(self, link: str) -> None:
        """`overtake n1->n2`: the last message on this link comes before all others."""
        *others, last = self._taken((link,))
        self.mail = [last, *others, *self.mail]
        self.do_mail()

    def do_repeat(self, *links: str) -> None:
        """`repeat n1->n2`: it arrives, and stays on the way to arrive again."""
        taken = self._taken(links)
        for each in taken:
            self._arrives(*each)
        self.mail = taken + self.mail

    def do_drop(self, *links: str) -> None:
        """`drop n1->n2`: what is on the way is lost."""
        for sender, _, to, message in self._taken(links):
            self._say(f"{sender}->{to} is lost: {told(message)}")

    def do_mail(self) -> None:
        """`mail`: what is on the way."""
        for sender, _, to, message in self.mail:
            self._say(f"{sender}->{to} {told(message)}")

    def _taken(self, links: tuple[str, ...]) -> list[tuple[str, str, str, Message]]:
        wanted = [link.split("->") for link in links]

        def matches(sender: str, to: str) -> bool:
            return not wanted or any(one in ("*", sender) and other in ("*", to) for one, other in wanted)

        taken = [each for each in self.mail if matches(each[0], each[2])]
        self.mail = [each for each in self.mail if not matches(each[0], each[2])]
        return taken

    def _arrives(self, sender: str, store: str, to: str, message: Message) -> None:
        self._say(f"{sender}->{to} {told(message)}")
        self._indent = "  "
        try:
            self._step(to, Received(self.now, sender, message, store))
        except ProtocolViolation as error:
            self._say(f"{to} closes the link: {error.message}")
        self._indent = ""

    # -- shortcuts -----------------------------------------------------------------------------

    def do_settle(self, *names: str) -> None:
        """`settle [n1 n2]`: these persist and deliver until nothing moves; mail of others stays on the way.

        Only changes of role and configuration, and commits, are told.
        """
        among = names or tuple(name for name, place in self.places.items() if place.core is not None)
        for _ in range(1000):
            self.do_persist(*among)
            links = [f"{one}->{other}" for one in among for other in among if one != other]
            if not any(sender in among and to in among for sender, _, to, _ in self.mail):
                break
            self.do_deliver(*links)
        else:
            raise Mistake("nothing comes to rest")
        self.lines = [line.strip() for line in self.lines if any(word in line for word in _IMPORTANT)]

    def do_run(self, ms: str, *names: str) -> None:
        """`run 150 [n1 n2]`: so much time goes by, in which these work as they should; mail of others is lost.

        Told is what `settle` tells.
        """
        among = names or tuple(name for name, place in self.places.items() if place.core is not None)
        end, lines = self.now + int(ms) * MS, []
        while True:
            self.lines = []
            self.do_settle(*among)
            lines += self.lines
            self.mail = [each for each in self.mail if each[0] not in among and each[2] not in among]
            deadline, name = min((self._core(name).next_deadline_ns(), name) for name in among)
            if deadline > end:
                break
            self.now = max(self.now, deadline)
            self.lines = []
            self._step(name, Tick(self.now))
            lines += [line for line in self.lines if any(word in line for word in _IMPORTANT)]
        self.now, self.lines = end, lines

    def do_elect(self, name: str, *among: str) -> None:
        """`elect n1 [n2 n3]`: 2 T go by, n1 notices first, and these settle; again if it learns of a newer term."""
        lines = []
        for _ in range(3):
            self.now += 2 * T
            self.lines = []
            self.do_timeout(name)
            self.do_settle(*((name, *among) if among else ()))
            lines += self.lines
            if self._core(name).role is Role.LEADER:
                self.lines = lines
                return
        raise Mistake(f"{name} is not elected")

    def do_quietly(self, *command: str) -> None:
        """`quietly COMMAND`: what it leads to is not told."""
        self.do(" ".join(command))
        self.lines = []

    # -- looks ---------------------------------------------------------------------------------

    def do_show(self, *names: str) -> None:
        """`show [n1]`: where each replica stands.  `|` in the log ends what is durable, `!` what is committed."""
        for name in names or tuple(self.places):
            core = self.places[name].core
            if core is None:
                self._say(f"{name} is down")
                continue
            vote = f", vote {core.voted_for}" if core.voted_for else ""
            leader = f" of {core.leader}" if core.leader and core.role is not Role.LEADER else ""
            self._say(f"{name} {core.role}{leader}, term {core.term}{vote}, log {log_shown(core)}")

    def do_progress(self, name: str) -> None:
        """`progress n1`: what the leader knows of each follower."""
        for peer, progress in self._core(name).progress.items():
            waits = f", {progress.inflight_messages} messages in flight" if progress.inflight_messages else ""
            self._say(f"{peer} {progress.pace}, match {progress.match}, next {progress.next}{waits}")

    def do_configuration(self, name: str) -> None:
        """`configuration n1`: the configuration that counts there."""
        configuration = self._core(name).configuration
        self._say(configuration_shown(configuration) if configuration else "none")

    # -- effects -------------------------------------------------------------------------------

    def _core(self, name: str) -> Core:
        core = self.places[name].core if name in self.places else None
        if core is None:
            raise Mistake(f"there is no running {name}")
        return core

    def _say(self, line: str) -> None:
        self.lines.append(self._indent + line)

    def _step(self, name: str, event: Event) -> None:
        for effect in self._core(name).step(event):
            self._carry_out(name, effect)

    def _carry_out(self, name: str, effect: Effect) -> None:
        place = self.places[name]
        match effect:
            case Persist():
                place.writes.append(effect)
                self._say(f"{name} write {effect.write}: {written(effect)}")
            case Send(to=to, message=message, after_persist=waits):
                if waits and place.writes:
                    place.held.append((place.writes[-1].write, effect))
                    self._say(f"{name}->{to} {told(message)}  (waits for write {place.writes[-1].write})")
                else:
                    self._leaves(name, to, message)
            case Apply(entries=entries):
                self._say(f"{name} applies {' '.join(map(entry_told, entries))}")
                self._step(name, ApplyDone(self.now, entries[-1].index))
            case SendChunk():
                data = bytes(min(effect.bytes_max, SNAPSHOT_BYTES - effect.offset))
                self._leaves(name, effect.to, SnapshotChunk(effect.term, effect.snapshot, effect.offset, data))
            case TakeChunk(chunk=chunk):
                self._take(name, chunk)
            case Restore(snapshot=snapshot):
                place.newest = snapshot
                self._say(f"{name} restores the state at {snapshot.index}@{snapshot.term}")
            case _:
                self._say(effect_shown(name, effect))

    def _leaves(self, name: str, to: str, message: Message) -> None:
        self.mail.append((name, self.places[name].store, to, message))
        self._say(f"{name}->{to} {told(message)}")

    def _take(self, name: str, chunk: SnapshotChunk) -> None:
        """As the snapshot store does it: only the piece that comes next is written."""
        place, snapshot = self.places[name], chunk.snapshot
        have = place.parts.get(snapshot, 0)
        if chunk.data and chunk.offset == have:
            have = place.parts[snapshot] = have + len(chunk.data)
        if have < snapshot.size_bytes:
            self._step(name, ChunkTaken(self.now, snapshot, have))
            return
        self._say(f"{name} has the whole snapshot {snapshot.index}@{snapshot.term}")
        whole = [each.snapshots[snapshot] for each in self.places.values() if snapshot in each.snapshots]
        self._step(name, SnapshotReceived(self.now, whole[0]))
