"""The parts of one replica, put together and run.

Owns: what is made of what, the two ports, and the order of starting and stopping.
Must not know: how any part works, or how the process was started (`scheduler.replica`).

The links port serves the other replicas and the agents; the API port serves people and
programs.  Consensus starts last, when everything that it will call exists.  Whatever part
fails takes the replica down with its error: a replica that limps is worse than one that is
seen to be gone.
"""

from __future__ import annotations

import asyncio

import structlog

from cluster.host import Host, SystemHost
from cluster.metrics import Metrics
from cluster.network import Listening, ListenLimits
from cluster.security import Authority, Scope
from cluster.settings import Config
from cluster.transport import LinkIdentity, Links
from raft.core import CoreConfig
from raft.driver import Driver
from raft.effects import Role, RoleChanged
from raft.errors import SkerryError, StoreCorrupt
from raft.messages import Message
from raft.status import Standing
from raft.store.log_store import LogStore
from scheduler import forwarding, output, renewals, roster
from scheduler.api.events import Events
from scheduler.api.services import Services
from scheduler.api.table import api_limits, make_api, problem
from scheduler.changelog import Changelog
from scheduler.collector import Collector
from scheduler.fingerprint import Fingerprint
from scheduler.homing import Homing
from scheduler.lease_keeper import LeaseKeeper
from scheduler.leases import MS_NS, Rules
from scheduler.machine import Machine
from scheduler.outcomes import decode_result, encode_result
from scheduler.output import OutputReader
from scheduler.placing import Placing
from scheduler.proposals import BadCall, Proposals
from scheduler.reign import Reigns
from scheduler.renewals import Renewals
from scheduler.roster import Roster, Row
from scheduler.sessions import Sessions
from scheduler.shards import OwnerKeeper
from scheduler.standing import Guard
from scheduler.state import State

STOP_S = 1.8
HAND_OVER_S = 1.0
LINK_PROVEN_NS = 1_500_000_000
"""A link whose last proof is older does not count."""
LINKS_REQUESTS_MIN = 1024
"""Forwarded calls in progress: never fewer than the callers of another replica may have waiting."""


class Replica:
    """The parts of one replica, wired.

    Args:
        config: checked configuration.
        log: for people.
        host: the machine it runs on; this one unless given.

    Raises:
        StoreError: the data directory cannot be used (locked, foreign, too new, damaged …).
    """

    def __init__(self, config: Config, log: structlog.stdlib.BoundLogger, host: Host | None = None) -> None:
        mine = config.replica
        self._host = host = host or SystemHost()
        self.config = config
        self.node = mine.id
        self._log = log
        self._clock = host.clock
        self._stop = asyncio.Event()
        self._listeners: list[Listening] = []
        store = LogStore.open(
            host.disk(mine.dir),
            node_id=mine.id,
            cluster_name=config.cluster.name,
            dice=host.dice,
            segment_bytes=config.raft.segment_bytes,
            retire_damaged=len(mine.peers) > 1,  # alone, there is nobody to learn from
        )
        self.tracer = host.tracer(
            mine.id,
            config.trace.dir,
            roll_bytes=config.trace.roll_bytes,
            heartbeat_sample=config.trace.heartbeat_sample,
            meta={"nodes": sorted(mine.peers), "backend": "process", "role": "replica"},
        )
        self._tell_retired(store)
        self.state = State()
        self.changelog = Changelog()
        self.machine = Machine(self.state, observer=self.tracer, changelog=self.changelog, log=log)
        self.links = Links(
            identity=LinkIdentity(
                mine.id, store.store_id, config.cluster.name, self._cluster_id, retired=self._retired_stores
            ),
            peers=dict(mine.peers),
            token=config.security.link_token,
            tracer=self.tracer,
            clock=self._clock,
            dice=host.dice,
            deliver=self._deliver,
            serve=self._serve,
            network=host.network,
            requests_max=max(config.links.requests_max, LINKS_REQUESTS_MIN),
            ping_ns=config.links.ping_ms * MS_NS,
            routine=(roster.ROW, renewals.RENEW),
        )
        self.driver = Driver(
            config=core_config(config, store.store_id, founds=not store.replaces),
            store=store,
            transport=self.links,
            clock=self._clock,
            dice=host.dice,
            machine=self.machine,
            observer=self.tracer,
            threads=host.threads,
        )
        self.proposals = Proposals(
            node=mine.id,
            consensus=self.driver,
            peers=self.links,
            encode_result=encode_result,
            decode_result=decode_result,
        )
        self.roster = Roster(
            node=mine.id,
            members=lambda: sorted(mine.peers),
            own=self._row,
            digest=Fingerprint(self.state).now,
            peers=self.links,
            linked=self.links.linked_peers,
        )
        self._add_leases()
        self._add_placing()
        self._add_services()
        self.machine.on_applied += [self.sessions.applied, self.placing.applied, self.lease_keeper.applied]
        self.driver.on_role.append(self._role_changed)

    def _tell_retired(self, store: LogStore) -> None:
        """Say loudly that a damaged store was taken out of service."""
        retired = store.retired
        if retired is None:
            return
        text = f"store {retired.store} is damaged and retired: {retired.why}"
        self._log.error(
            text,
            code=StoreCorrupt.code,
            hint=f"its files are kept in {retired.folder} of the data directory; delete them when they are of no use",
            store=store.store_id,
        )
        self.tracer.emit("note", text=f"{text}; goes on empty, as store {store.store_id}")

    def _add_leases(self) -> None:
        """What grants leases, while this replica leads, and what asks for them on behalf of agents."""
        self.lease_keeper = LeaseKeeper(
            node=self.node,
            consensus=self.driver,
            term=lambda: self.driver.core.term,
            state=self.state,
            rules=lease_rules(self.config),
            trace=self.tracer,
            log=self._log,
            now_ns=self._clock.now_ns,
            wall_ms=self._wall_ms,
        )
        self.renewals = Renewals(node=self.node, leader=self._leader, peers=self.links, keeper=self.lease_keeper)

    def _add_placing(self) -> None:
        """What decides about work: on every replica, and on the leader alone."""
        now_s = self._now_s
        self.placing = Placing(
            node=self.node,
            consensus=self.driver,
            door=self.proposals,
            state=self.state,
            roster=self.roster,
            now_s=now_s,
            wall_ms=self._wall_ms,
            log=self._log,
        )
        self.owner_keeper = OwnerKeeper(
            node=self.node,
            consensus=self.driver,
            state=self.state,
            members=lambda: sorted(self.config.replica.peers),
            following=self._following,
            count_live=self.placing.count_live,
            now_s=now_s,
            wall_ms=self._wall_ms,
            log=self._log,
        )
        self.collector = Collector(consensus=self.driver, state=self.state, wall_ms=self._wall_ms, log=self._log)
        self.reigns = Reigns(
            consensus=self.driver, work=(self.owner_keeper.run, self.lease_keeper.reign, self.collector.run)
        )

    def _add_services(self) -> None:
        """What agents and API callers talk to."""
        config, log = self.config, self._log
        link_authority = Authority({config.security.link_token: Scope.OPERATE})
        self.sessions = Sessions(
            replica=self.node,
            state=self.state,
            door=self.proposals,
            trace=self.tracer,
            log=log,
            authorize=lambda authorization: void(link_authority.check(authorization, Scope.OPERATE)),
            refused=lambda error: problem(error, self._leader()),
            cluster=lambda: (self._cluster_id(), self._generation()),
            leader=self._leader,
            wait_applied=self.driver.wait_applied,
            wall_ms=self._wall_ms,
            renewals=self.renewals,
            lease_ms=config.lease.duration_ms,
        )
        self.guard = Guard(
            node=self.node,
            standing=lambda: self.driver.standing,
            sessions=self.sessions,
            pause=self.placing.leader_changed,
            log=log,
        )
        self.driver.on_standing.append(self.guard.changed)
        self.homing = Homing(
            held=self.sessions.held,
            owner_of=lambda node: self.state.books.shards.owner(node),
            targets=self._linked,
            now_s=self._now_s,
        )
        others = [peer for peer in sorted(config.replica.peers) if peer != self.node]
        self.output = OutputReader(others=others, held=self.sessions, peers=self.links)
        self.services = Services(
            node=self.node,
            state=self.state,
            door=self.proposals,
            roster=self.roster,
            output=self.output,
            changelog=self.changelog,
            trace=self.tracer,
            leader=self._leader,
            wall_ms=self._wall_ms,
            usable=self.guard.check,
        )
        self.events = Events(self.services)
        self.metrics = Metrics()
        add_metrics(self.metrics, self)

    # --- running ------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Ask for an orderly end."""
        if not self._stop.is_set():
            self._log.info("stopping", why=why)
            self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`; raises what ended a part that must not end."""
        try:
            await self._listen()
            async with asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(part, name=name)
                    for name, part in (
                        ("links", self.links.run()),
                        ("proposals", self.proposals.run()),
                        ("renewals", self.renewals.run()),
                        ("placing", self.placing.run()),
                        ("homing", self.homing.run()),
                        ("guard", self.guard.run()),
                        ("reigns", self.reigns.run()),
                        ("driver", self.driver.run()),
                    )
                ]
                self._host.settle()
                await self._stop.wait()
                await self._close()
                for part in parts:
                    part.cancel()
        finally:
            for listener in self._listeners:
                await listener.close()
            await self.driver.stop()
            self.tracer.close()

    async def _listen(self) -> None:
        limits = ListenLimits(connections_max=self.config.links.connections_max)
        mine = self.config.replica
        sockets = {**self.links.sockets(), **self.sessions.sockets()}
        network = self._host.network
        self._listeners.append(
            await network.listen(mine.listen_links, sockets=sockets, key="replica.listen_links", limits=limits)
        )
        served = make_api(self.config, self.services, self.events, self.metrics, self._leader)
        self._listeners.append(
            await network.listen(mine.listen_api, api=served, key="replica.listen_api", limits=api_limits(self.config))
        )
        links, api = (listener.address for listener in self._listeners)
        self._log.info("listening", links=links, api=api)

    async def _close(self) -> None:
        """End in order: leadership first, then callers, then consensus, then the links."""
        await self._hand_over()
        try:
            async with asyncio.timeout(STOP_S):
                self.events.close()
                await self.sessions.close()
                await self.driver.stop()
                await self.links.close()
        except TimeoutError:
            self._log.warning("stopping took too long; ending anyway")

    async def _hand_over(self) -> None:
        """Leave no gap: have another replica lead before this one goes, if one can within a short time."""
        if self.driver.core.role is not Role.LEADER:
            return
        try:
            async with asyncio.timeout(HAND_OVER_S):
                leader = await self.driver.hand_over()
        except (SkerryError, TimeoutError) as error:
            self._log.info("nobody took the leadership over", why=str(error))
        else:
            self._log.info("handed the leadership over", leader=leader)

    # --- wiring -------------------------------------------------------------------------------

    def _deliver(self, sender: str, message: Message, store: str) -> None:
        self.driver.receive(sender, message, store)

    async def _serve(self, sender: str, method: str, body: bytes) -> bytes:
        """Calls of other replicas."""
        match method:
            case forwarding.PROPOSE | forwarding.READ_INDEX:
                return await self.proposals.serve(method, body)
            case renewals.RENEW:
                return await self.renewals.serve(body)
            case roster.ROW:
                return await self.roster.serve(body)
            case output.SESSION_LOGS:
                return await self.output.serve(body)
        raise BadCall(f"replica {sender} calls {method!r}, which is not known here", hint="is it another version?")

    def _role_changed(self, change: RoleChanged) -> None:
        self._log.info("role", role=change.role.value, term=change.term, leader=change.leader, why=change.why)
        self.proposals.leader_changed()
        self.placing.leader_changed()
        self.reigns.role_changed(change)

    def _row(self) -> Row:
        status = self.driver.status()
        return Row(
            status.id,
            status.role,
            status.term,
            status.leader,
            status.commit_index,
            status.applied_index,
            "",
            self.sessions.usage(),
            "\n".join(alert for alert in (self.guard.alert, self.lease_keeper.alert) if alert),
            (status.voters, status.outgoing) if status.outgoing else (status.voters,) if status.voters else (),
            self.driver.standing.value,
        )

    def _leader(self) -> str | None:
        return self.driver.leader

    def _cluster_id(self) -> str:
        configuration = self.driver.core.configuration
        return configuration.cluster_id if configuration else ""

    def _generation(self) -> int:
        configuration = self.driver.core.configuration
        return configuration.generation if configuration else 0

    def _retired_stores(self) -> tuple[str, ...]:
        configuration = self.driver.core.committed_configuration
        return configuration.retired if configuration else ()

    def _now_s(self) -> float:
        return self._clock.now_ns() / 1e9

    def _linked(self) -> list[str]:
        """The other replicas with proven links both ways."""
        return self.links.proven_peers(LINK_PROVEN_NS)

    def _following(self) -> list[str]:
        """Of those, the ones that this leader replicates to without having to look for their place."""
        linked = self._linked()
        return [peer for peer in self.driver.in_step if peer in linked]

    def _wall_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


def core_config(config: Config, store_id: str, *, founds: bool = True) -> CoreConfig:
    """What consensus is told, from the configuration; `founds` of a store that took no damaged one's place."""
    raft = config.raft
    return CoreConfig(
        id=config.replica.id,
        store_id=store_id,
        founds=founds,
        peers=tuple(sorted(config.replica.peers)),
        election_timeout_ns=raft.election_timeout_ms * 1_000_000,
        max_inflight_messages=raft.max_inflight_messages,
        max_inflight_bytes=raft.max_inflight_bytes,
        max_message_bytes=raft.max_message_bytes,
        uncommitted_bytes_max=raft.uncommitted_bytes_max,
        log_entries_max=raft.log_entries_max,
        log_bytes_max=raft.log_bytes_max,
        snapshot_log_bytes=raft.snapshot_log_bytes,
        snapshot_entries=raft.snapshot_entries,
        snapshot_chunk_bytes=raft.snapshot_chunk_bytes,
        keep_tail_entries=raft.keep_tail_entries,
        digest_every=raft.digest_every,
    )


def lease_rules(config: Config) -> Rules:
    """The terms of leases, from the configuration."""
    lease = config.lease
    allowance_ms = lease.reconnect_allowance_ms or lease.duration_ms * 3 // 2
    return Rules(
        lease_ns=lease.duration_ms * MS_NS,
        reconnect_ns=allowance_ms * MS_NS,
        drift_ppm=lease.drift_ppm,
        delta_ns=lease.delta_ms * MS_NS,
    )


def add_metrics(metrics: Metrics, replica: Replica) -> None:
    """What `/metrics` shows of a replica, read from its parts at each scrape."""
    driver = replica.driver
    read = metrics.read
    read("term", "Current term", lambda: [((), float(driver.core.term))])
    read("leading", "1 while this replica leads", lambda: [((), float(driver.leader == replica.node))])
    read("commit_index", "Highest committed index", lambda: [((), float(driver.core.commit_index))])
    read("applied_index", "Highest applied index", lambda: [((), float(driver.applied_index))])
    read(
        "state_standing",
        "1 for what the comparison of the replicas' states says of this one's",
        lambda: [((each.value,), float(driver.standing is each)) for each in Standing],
        labels=("standing",),
    )
    read("sessions", "Agents' sessions held here", lambda: [((), float(len(replica.sessions.usage())))])
    read("ring_epoch", "Epoch of the shard owners", lambda: [((), float(replica.state.books.shards.epoch))])
    read("proposals_waiting", "Proposals waiting here", lambda: [((), float(replica.proposals.waiting))])
    read("placements_in_flight", "Placements proposed, not decided", lambda: [((), float(replica.placing.in_flight))])
    read("elections_won", "Elections won", lambda: [((), float(driver.counters.elections))], counts=True)
    read("entries_applied", "Entries applied", lambda: [((), float(driver.counters.applied))], counts=True)


def void(_: object) -> None:
    """Drop a value where only the absence of an exception matters."""
