"""The node agent: one process a node, between the cluster's replicas and the sandboxer.

Owns: wiring, the order of starting and ending, what a signal means.
Must not know: rules about workloads (`agents.reconcile`) or frames (`agents.session`).

The agent never forks: the sandboxer is the parent of all workloads and outlives it.  Killed or
ended, an agent leaves workloads running, and the next one on the directory adopts them; with
``agent.stop_workloads_on_exit`` an *ordered* end stops everything and reports the exits first.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from agents import inventory, lease
from agents.alone import alone
from agents.dialer import Dialer
from agents.errors import ForeignDirectory, NotAdmitted, SessionRejected, sole
from agents.home import Home
from agents.log_files import LogFiles
from agents.logs import Logs, ReadOutput
from agents.reconcile import Reconciler
from agents.reporter import Reporter
from agents.runner import Runner
from agents.sandbox_client import SandboxClient, SandboxerGone, SandboxerOptions, SandboxerUnavailable
from agents.settings import AgentSettings, settings_from
from agents.usage import UsageBook
from cluster.config import Loaded
from cluster.errors import ConfigError
from cluster.host import Host, SystemHost
from cluster.trace import Tracer, lease_sample
from raft.errors import SkerryError
from scheduler.session import (
    PROTOCOL_VERSION,
    AgentHello,
    Desired,
    Heartbeat,
    HeartbeatConfirmed,
    LogsReply,
    LogsRequest,
    SessionAccepted,
    Status,
)

log = structlog.get_logger(__name__)

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_ALLOWED, EXIT_BUG = 0, 1, 2, 5, 70
FINAL_REPORTS_S = 3.0
SANDBOXER_PAUSE_S = 1.0
SANDBOXER_GONE_PAUSE_S = 0.1
"""Before the next connection, so that a sandboxer that keeps dying does not keep a processor busy."""
SANDBOXER_ATTEMPTS = 5
"""Failed starts of the sandboxer in a row before the agent gives up."""


class Agent:
    """The state of one agent process; is the `agents.session.Host` of its sessions."""

    def __init__(
        self,
        settings: AgentSettings,
        home: Home,
        tracer: Tracer,
        connect: Callable[[], Awaitable[SandboxClient]],
        *,
        host: Host | None = None,
        read_output: ReadOutput | None = None,
    ) -> None:
        self.news = asyncio.Event()
        self._connect = connect
        self._settings = settings
        self._home = home
        self._tracer = tracer
        self._capacity = inventory.capacity(
            cpu_millicores=settings.cpu_millicores, memory_bytes=settings.memory_bytes, pids=settings.pids
        )
        host = host or SystemHost()
        self._clock = host.clock
        self._reconciler = Reconciler()
        self._reporter = Reporter()
        self._usage = UsageBook()
        self._lease = lease.LeaseLog(lease_sample(tracer.heartbeat_sample))
        self._logs = Logs(read_output or LogFiles(home.directory).read, self._reconciler.live_epochs)
        self._dialer = Dialer(settings.replicas, settings.token, self, tracer, host.dice, host.network)
        self._client: SandboxClient | None = None
        self._sandboxer = ""
        """Incarnation of the sandboxer that is or was served last."""
        self._runner: Runner | None = None
        self._committed = asyncio.Event()
        self._drained = asyncio.Event()
        self._beats = 0
        self._ending = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set.

        Raises:
            SandboxerUnavailable: no sandboxer can be started here.
            NotAdmitted: the cluster refuses this node for good.
        """
        work = asyncio.create_task(self._work(), name="agent-work")
        stopped = asyncio.create_task(stop.wait(), name="agent-stop")
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self._settings.stop_workloads_on_exit:
                await self._stop_workloads()
        finally:
            stopped.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _work(self) -> None:
        """Connections to the sandboxer, one after the other; each has its own session."""
        failures = 0
        while True:
            try:
                client = await self._connect()
            except SandboxerUnavailable as error:
                failures += 1
                log.error("no sandboxer", why=error.message, hint=error.hint, attempt=failures)
                if failures >= SANDBOXER_ATTEMPTS:
                    raise
                await asyncio.sleep(SANDBOXER_PAUSE_S)
                continue
            failures = 0
            try:
                await alone(self._serve(client))
            except SandboxerGone as error:
                log.error("sandboxer gone", why=error.message)
                await asyncio.sleep(SANDBOXER_GONE_PAUSE_S)
            finally:
                await client.close()

    async def _serve(self, client: SandboxClient) -> None:
        """Work with one sandboxer; raises SandboxerGone when it goes."""
        runner = Runner(
            client, self._reconciler, self._reporter, self._usage, emit=self._tracer.emit, changed=self.news.set
        )
        await runner.adopt()
        if client.incarnation != self._sandboxer:
            self._sandboxer = client.incarnation
            self._reporter.sandboxer_changed()
        self._client, self._runner = client, runner
        settings = self._settings
        log.info("sandboxer connected", incarnation=client.incarnation, isolation=client.hello.isolation)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._until_ordered(runner.run(settings.usage_s)))
                tasks.create_task(
                    self._dialer.run(heartbeat_s=settings.heartbeat_s, confirm_timeout_s=settings.confirm_timeout_s)
                )
        except BaseExceptionGroup as group:
            raise sole(group, NotAdmitted, ForeignDirectory, SandboxerGone) from None
        finally:
            self._client = self._runner = None

    async def _until_ordered(self, work: Awaitable[None]) -> None:
        """The sandboxer's going is the aim, not a failure, once its shutdown was ordered."""
        try:
            await work
        except BaseExceptionGroup as group:
            gone = sole(group, SandboxerGone)
            if not self._ending:
                raise gone from None
            self._drained.set()

    async def _stop_workloads(self) -> None:
        """Stop everything through the sandboxer, then see the exits committed, as long as that may take."""
        client, runner = self._client, self._runner
        if client is None or runner is None:
            log.warning("no sandboxer to stop workloads with")
            return
        self._ending = True
        runner.starts_allowed = False
        log.info("stopping all workloads", live=len(self._reconciler.live()))
        try:
            await client.shutdown(stop_workloads=True)
        except SkerryError as error:
            log.warning("sandboxer ended before it answered", why=str(error))
        try:
            async with asyncio.timeout(FINAL_REPORTS_S):
                await self._drained.wait()
                while self._reporter.outstanding and self._dialer.connected:
                    self._committed.clear()
                    await self._committed.wait()
        except TimeoutError:
            log.warning("exits not committed in time", reports=self._reporter.outstanding)

    # What sessions ask of their host.

    def now_ns(self) -> int:
        """The clock of renewals and deadlines."""
        return lease.now_ns(self._clock)

    def hello(self) -> AgentHello:
        """Who this node is; the incarnation is the sandboxer's."""
        assert self._client is not None, "sessions exist only with a sandboxer"
        about = self._client.hello
        return AgentHello(
            PROTOCOL_VERSION, self._settings.node, about.incarnation, about.boot_id, self._home.cluster_id,
            self._capacity, about.isolation, about.isolation_why, self._settings.address,
            labels=self._settings.labels, taints=self._settings.taints,
            installation=self._home.installation,
        )  # fmt: skip

    def accepted(self, answer: SessionAccepted) -> None:
        """Belong to the first cluster that accepts; SessionRejected for any other."""
        if answer.cluster_id and self._home.cluster_id and answer.cluster_id != self._home.cluster_id:
            raise SessionRejected(
                f"replica {answer.replica} is of cluster {answer.cluster_id}, this node of {self._home.cluster_id}",
                hint="give this agent the replicas of its own cluster, or an empty directory",
                refusal="wrong-cluster",
            )
        if answer.cluster_id:
            self._home.remember(answer.cluster_id)
        self._reporter.session_began()
        self.news.set()

    def next_heartbeat(self) -> Heartbeat:
        """The next renewal, with what the workloads use."""
        self._beats += 1
        return Heartbeat(self._beats, self._usage.by_allocation(), self._usage.node())

    def confirmed(self, message: HeartbeatConfirmed, sent_ns: int) -> None:
        """The session's replica has a quorum behind it: the lease is prolonged, counted from the send."""
        self._dialer.confirmed()
        if not message.lease_ms:
            return
        deadline_ns = lease.deadline_ns(sent_ns, message.lease_ms * lease.MS_NS)
        if self._runner is not None:
            self._runner.renew(deadline_ns, message.registration)
        now_ns = self.now_ns()
        what = self._lease.confirmed(now_ns, deadline_ns, message.registration)
        if what:
            self._tracer.emit(
                "lease", do=what, node=self._settings.node, number=message.number, deadline_ns=deadline_ns,
                registration=message.registration, sent_ns=sent_ns, left_ms=(deadline_ns - now_ns) // lease.MS_NS,
                lease_ms=message.lease_ms, one_in=self._lease.sample,
            )  # fmt: skip

    def desired(self, wanted: Desired) -> None:
        """Reconcile with a set."""
        if self._runner is not None:
            self._runner.take(self._reconciler.desired(wanted))
        self.news.set()

    def next_status(self, now_s: float) -> Status | None:
        """The status to send now."""
        return self._reporter.next(now_s, known_index=self._reconciler.known_index, unknown=self._reconciler.unknown())

    def status_due_in(self, now_s: float) -> float | None:
        """When to ask again."""
        return self._reporter.due_in(now_s)

    def status_committed(self, number: int, index: int) -> None:
        """Reports are in the log."""
        reports = self._reporter.committed(number)
        if self._runner is not None:
            self._runner.take(self._reconciler.committed(reports, index))
        self._committed.set()
        self.news.set()

    async def logs(self, request: LogsRequest) -> LogsReply:
        """Read workload output."""
        return await self._logs.answer(request)


async def connect_sandboxer(settings: AgentSettings, tracer: Tracer) -> SandboxClient:
    """A connection to the directory's sandboxer, which is started if it does not run.

    Raises:
        SandboxerUnavailable: it cannot be started.
    """
    options = SandboxerOptions(
        node=settings.node,
        cluster=settings.cluster,
        cgroup_root=settings.cgroup_root or None,
        cgroups=settings.cgroups,
        bridge_subnet=settings.bridge_subnet,
        users=settings.workload_users,
        trace_dir=str(settings.trace_directory.absolute()) if settings.trace_directory else None,
    )
    return await SandboxClient.connect(settings.directory, start_if_absent=True, options=options, clocks=tracer)


async def run_agent(loaded: Loaded) -> int:
    """Run an agent until SIGTERM or SIGINT; returns the process's exit code and logs why."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        return await _run(settings_from(loaded), stop)
    except ConfigError as error:
        log.error("agent not configured", code=error.code, why=error.message, hint=error.hint)
        return EXIT_USAGE
    except SkerryError as error:
        log.error("agent ends", code=error.code, why=error.message, hint=error.hint)
        return EXIT_NOT_ALLOWED if error.code == "not-admitted" else EXIT_FAILED
    except OSError as error:
        log.error("agent ends", code="agent-directory", why=str(error), hint="check agent.dir")
        return EXIT_FAILED
    except Exception as error:
        log.error("agent ends on an internal error", code="internal", exc_info=error)
        return EXIT_BUG
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _run(settings: AgentSettings, stop: asyncio.Event) -> int:
    host = SystemHost()
    home = Home.open(settings.directory, node=settings.node, cluster_name=settings.cluster, dice=host.dice)
    try:
        tracer = host.tracer(
            settings.node,
            str(settings.trace_directory or ""),
            roll_bytes=settings.trace_roll_bytes,
            heartbeat_sample=settings.heartbeat_sample,
            meta={},
        )
        try:
            tracer.emit("note", text="agent started")
            await Agent(settings, home, tracer, lambda: connect_sandboxer(settings, tracer), host=host).run(stop)
            tracer.emit("note", text="agent ended")
        finally:
            tracer.close()
    finally:
        home.close()
    log.info("agent ended")
    return EXIT_DONE


def main_agent(loaded: Loaded) -> int:
    """Run an agent as this process's whole work; returns its exit code.  The caller sets up logging."""
    if not __debug__:
        log.error("agent ends", code="no-assertions", why="python -O removes checks", hint="start it without -O")
        return EXIT_USAGE
    return uvloop.run(run_agent(loaded))
