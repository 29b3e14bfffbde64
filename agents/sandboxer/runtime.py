"""Carries out what the core decides, and tells it what happened.

Owns: the processes' descriptors, spawning, killing, reaping, exit statuses, cgroups, outputs.
Must not know: clients and sockets (it has callbacks), or why anything is decided.
"""

from __future__ import annotations

import contextlib
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agents.sandboxer import adoption, birth, exit_status, fence, process, protocol
from agents.sandboxer import events as ev
from agents.sandboxer.cgroups.base import Backend
from agents.sandboxer.core import Core
from agents.sandboxer.launcher import Launcher
from agents.sandboxer.output import CHECK_S
from agents.sandboxer.spec import Key, Spec

if TYPE_CHECKING:
    from agents.sandboxer.surroundings import Journal, Kernel, Loop, Network, Outputs, Spawner, Tracer
    from agents.sandboxer.users import Users

EMPTY_CHECK_S: Final = 0.002
EMPTY_CHECK_S_MAX: Final = 0.1
FOREIGN_STATUS_S_MAX: Final = 10.0
"""How long the status of an adopted process is waited for after its end: its parent reaps it when it likes."""
FOREIGN_CHECK_S: Final = 0.01
OOM_CHECK_S: Final = 0.005
OOM_CHECKS_MAX: Final = 200
REMOVE_RETRY_S: Final = 0.01
REMOVE_S_MAX: Final = 10.0
RUN_FIELDS: Final = ("allocation", "attempt", "epoch", "pid", "cgroup", "on_disconnect")
RUN_EVENTS: Final = {"started": "start", "stopping": "stop", "exited": "exit", "adopted": "adopt", "oom": "oom"}


@dataclass(slots=True)
class Handle:
    """Descriptors of one attempt."""

    key: Key
    name: str
    pid: int
    pidfd: int
    init_pid: int
    init_pidfd: int
    report: int = -1
    said: bytes = b""
    oom: int = -1
    adopted: bool = False
    main_gone: bool = False
    init_gone: bool = False
    checking: bool = False


class Runtime:
    """Does what `Core` decides.  `say` gets the effects meant for clients."""

    def __init__(
        self,
        *,
        loop: Loop,
        core: Core,
        backend: Backend,
        journal: Journal,
        outputs: Outputs,
        tracer: Tracer,
        network: Network,
        kernel: Kernel,
        spawner: Spawner,
        environment: dict[str, str],
        users: Users | None,
        recall: adoption.Recall,
        say: Callable[[ev.Reply | ev.Refuse | ev.Announce | ev.Finish], None],
    ) -> None:
        self._loop = loop
        self._core = core
        self._backend = backend
        self._journal = journal
        self._outputs = outputs
        self._network = network
        self._tracer = tracer
        self._say = say
        self._launcher = Launcher(backend, outputs, network, kernel, spawner, environment, users)
        self._handles: dict[Key, Handle] = {}
        self._events: deque[ev.Event] = deque()
        self._stepping = False
        self._tick_ns: int | None = None
        self._kernel = kernel
        self._boot_id = kernel.boot_id()
        self._leftovers = recall.leftovers
        for key, item in recall.found.items():
            self._adopt(key, item)
        network.clean()

    # -- the core's surroundings ------------------------------------------------------------------

    def begin(self) -> None:
        """Carry out what the core concluded from what was found."""
        for effect in self._core.birth_effects():
            self._perform(effect)
        for name in self._leftovers:
            self._release(name, self._loop.now_ns())
        for handle in list(self._handles.values()):
            self._watch(handle)
        self._loop.call_later(CHECK_S, self._bound_outputs)
        self._set_timer()

    def dispatch(self, event: ev.Event) -> None:
        """Let the core take an event, and carry out the effects; events they cause come after it."""
        if isinstance(event, ev.ShutdownAsked) and event.stop_workloads:
            self._tracer.emit("note", text="sandboxer stops its workloads")
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                for effect in self._core.step(self._events.popleft(), self._loop.now_ns()):
                    self._perform(effect)
        finally:
            self._stepping = False
        self._set_timer()

    def describe(self, record: dict[str, Any]) -> dict[str, Any]:
        """A core's record with its paths."""
        name = protocol.directory_name(record["allocation"], record["epoch"])
        return {**record, "cgroup": self._backend.path(name), "output": self._outputs.path(name)}

    def usage(self) -> tuple[dict[str, tuple[int, int, int]], tuple[int, int]]:
        """(per allocation, sum) of what runs now."""
        used: dict[str, tuple[int, int, int]] = {}
        for key, handle in self._handles.items():
            if not handle.main_gone:
                used[key[0]] = self._backend.usage(handle.name)
        return used, (sum(item[0] for item in used.values()), sum(item[1] for item in used.values()))

    def reap_orphans(self) -> None:
        """Reap children we did not start: descendants that outlived their parents (we are a subreaper)."""
        known = {self._journal.pid, self._network.helper_pid}
        for handle in self._handles.values():
            known.update((handle.pid, handle.init_pid))
        with contextlib.suppress(OSError):
            for pid in self._kernel.children():
                if pid not in known:
                    self._kernel.reap(pid)

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Journal():
                self._journal.append(effect.sequence, effect.record)
            case ev.Spawn():
                self._spawn(effect.spec)
            case ev.Terminate():
                self._terminate(effect.key)
            case ev.Kill():
                self._kill(effect.key)
            case ev.Release():
                self._release(protocol.directory_name(*effect.key), self._loop.now_ns())
            case ev.Discard():
                self._launcher.discard(protocol.directory_name(*effect.key))
            case ev.Announce():
                self._trace(effect)
                self._say(effect)
            case ev.Fenced():
                self._trace_run("fenced", effect.record, deadline_ns=effect.deadline_ns)
            case ev.LeaseOver():
                node = self._tracer.node
                self._tracer.emit("lease", do="expire", node=node, deadline_ns=effect.deadline_ns, fenced=effect.fenced)
            case ev.KeepLease():
                with contextlib.suppress(OSError):  # then the next sandboxer knows of none, and ends what needs one
                    self._backend.keep_lease(fence.encode(effect.lease, self._boot_id))
            case ev.Reply() | ev.Refuse() | ev.Finish():
                self._say(effect)

    def _trace(self, effect: ev.Announce) -> None:
        ended = {"exit": effect.record["exit"]} if effect.kind == "exited" else {}
        self._trace_run(RUN_EVENTS[effect.kind], effect.record, **ended)

    def _trace_run(self, do: str, record: dict[str, Any], **more: Any) -> None:
        described = self.describe(record)
        fields = {name: described[name] for name in RUN_FIELDS}
        self._tracer.emit("run", do=do, **fields, **more)

    def _set_timer(self) -> None:
        due = self._core.next_deadline_ns()
        if due is not None and (self._tick_ns is None or due < self._tick_ns):
            self._tick_ns = due
            self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._tick_ns = None
        self.dispatch(ev.Tick())

    def _bound_outputs(self) -> None:
        self._outputs.bound_all()
        self._loop.call_later(CHECK_S, self._bound_outputs)

    # -- starting ---------------------------------------------------------------------------------

    def _spawn(self, spec: Spec) -> None:
        key = spec.card.key
        name = protocol.directory_name(*key)
        try:
            child = self._launcher.launch(spec, name, lambda: self._may_run(spec))
        except fence.LeaseOver:
            self.dispatch(ev.StartBarred(key))
            return
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            self.dispatch(ev.StartFailed(key, f"preparing its sandbox: {error.strerror or error}{where}"))
            return
        handle = Handle(key, name, child.pid, child.pidfd, child.init_pid, child.init_pidfd, child.report)
        handle.oom = self._backend.watch_oom(name)
        self._handles[key] = handle
        self._watch(handle)
        self._loop.add_reader(handle.report, lambda: self._reported(handle))
        self.dispatch(ev.Spawned(key, child.pid, self._kernel.wall_ms()))

    def _may_run(self, spec: Spec) -> bool:
        """The last look before a program is let through."""
        lease = self._core.lease
        return fence.may_run(lease, spec.card.on_disconnect, lease.registration, self._loop.now_ns())

    def _reported(self, handle: Handle, *, ended: bool = False) -> None:
        """Read what the child says before exec; all is said at the end of the pipe, or when it `ended`."""
        while True:
            try:
                data = self._kernel.read(handle.report, birth.REPORT_BYTES_MAX)
            except BlockingIOError:
                if not ended:
                    return
                break
            if not data:
                break
            handle.said += data
        self._close_fd(handle, "report")
        said = process.read_report(handle.said)
        if said == "":
            self.dispatch(ev.Executed(handle.key))
        elif said is not None:
            self.dispatch(ev.StartFailed(handle.key, said))
        # None: it was killed before; its end says how

    # -- adopting ---------------------------------------------------------------------------------

    def _adopt(self, key: Key, found: adoption.Found) -> None:
        handle = Handle(key, found.name, found.pid, found.pidfd, found.init_pid, found.init_pidfd)
        handle.adopted = True
        handle.main_gone = found.pidfd < 0
        handle.init_gone = found.init_pidfd < 0
        handle.oom = -1 if handle.main_gone else self._backend.watch_oom(found.name)
        self._handles[key] = handle
        self._outputs.watch(found.name)
        self._launcher.adopt(found.name, found.user)
        if found.network is not None and not handle.main_gone:
            with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
                self._network.adopt(found.name, found.network)

    def _watch(self, handle: Handle) -> None:
        if not handle.main_gone:
            self._loop.add_reader(handle.pidfd, lambda: self._main_readable(handle))
        if handle.init_pidfd >= 0 and not handle.init_gone:
            self._loop.add_reader(handle.init_pidfd, lambda: self._init_readable(handle))
        if handle.oom >= 0:
            self._loop.add_reader(handle.oom, lambda: self._oom_readable(handle))

    # -- ending -----------------------------------------------------------------------------------

    def _terminate(self, key: Key) -> None:
        handle = self._handles.get(key)
        if handle is not None and not handle.main_gone:
            self._kernel.signal(handle.pidfd, signal.SIGTERM)

    def _kill(self, key: Key) -> None:
        handle = self._handles.get(key)
        name = protocol.directory_name(*key)
        if handle is not None and not handle.init_gone and handle.init_pidfd >= 0:
            self._kernel.signal(handle.init_pidfd, signal.SIGKILL)
        elif handle is not None and not handle.main_gone:
            self._kernel.signal(handle.pidfd, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._backend.kill(name)
        self._check_empty(key)

    def _main_readable(self, handle: Handle) -> None:
        """The main process ended: learn how, reap it, tell the core."""
        try:
            status = self._kernel.wait(handle.pidfd)
        except ChildProcessError:
            self._loop.remove(handle.pidfd)
            self._ask_foreign(handle, self._loop.now_ns() + int(FOREIGN_STATUS_S_MAX * 1e9))
            return
        if status is not None:
            self._main_ended(handle, status)

    def _ask_foreign(self, handle: Handle, deadline_ns: int) -> None:
        """The status of a process that is not our child: from its zombie, or from the kernel once it is reaped."""
        status = exit_status.of_stranger(self._kernel, handle.pid, handle.pidfd)
        if status is None and self._loop.now_ns() < deadline_ns:
            self._loop.call_later(FOREIGN_CHECK_S, lambda: self._ask_foreign(handle, deadline_ns))
            return
        self._main_ended(handle, exit_status.decoded(status))

    def _main_ended(self, handle: Handle, status: ev.Status) -> None:
        handle.main_gone = True
        if handle.report >= 0:
            self._reported(handle, ended=True)  # what it said comes before how it ended
        if handle.pidfd >= 0:
            self._loop.remove(handle.pidfd)
        self.dispatch(ev.MainExited(handle.key, status, self._backend.oom_kills(handle.name)))

    def _init_readable(self, handle: Handle) -> None:
        with contextlib.suppress(ChildProcessError):  # an adopted one is not ours to reap
            if self._kernel.wait(handle.init_pidfd) is None:
                return
        self._loop.remove(handle.init_pidfd)
        handle.init_gone = True
        self._check_empty(handle.key)

    def _oom_readable(self, handle: Handle) -> None:
        self._kernel.take_event(handle.oom)
        self._look_for_oom(handle, 0)

    def _look_for_oom(self, handle: Handle, looked: int) -> None:
        """The event comes just before the kill is counted."""
        if handle.key not in self._handles or handle.oom < 0:
            return
        kills = self._backend.oom_kills(handle.name)
        if kills:
            self.dispatch(ev.OomSeen(handle.key, kills))
        elif looked < OOM_CHECKS_MAX:
            self._loop.call_later(OOM_CHECK_S, lambda: self._look_for_oom(handle, looked + 1))

    def _check_empty(self, key: Key, pause_s: float = EMPTY_CHECK_S) -> None:
        """Tell the core once main, init and every member are gone; look again until then."""
        handle = self._handles.get(key)
        if (handle is None or self._parents_gone(handle)) and not self._backend.members(protocol.directory_name(*key)):
            if handle is not None:
                self._forget(handle)
            self.dispatch(ev.GroupEmpty(key))
            return
        if handle is not None:
            if handle.checking:
                return
            handle.checking = True
        self._loop.call_later(pause_s, lambda: self._check_again(key, pause_s))

    def _parents_gone(self, handle: Handle) -> bool:
        """Whether main and init are gone.

        An adopted init is not waited for where a cgroup says who is left: it ends only after
        somebody else's main process was reaped, and init itself is in no cgroup of ours.
        """
        return handle.main_gone and (
            handle.init_gone or handle.init_pidfd < 0 or (handle.adopted and self._backend.confines)
        )

    def _check_again(self, key: Key, pause_s: float) -> None:
        handle = self._handles.get(key)
        if handle is not None:
            handle.checking = False
        if key in self._core.live():
            self._check_empty(key, min(pause_s * 2, EMPTY_CHECK_S_MAX))

    def _forget(self, handle: Handle) -> None:
        del self._handles[handle.key]
        self._network.disconnect(handle.name)
        for field in ("report", "pidfd", "init_pidfd", "oom"):
            self._close_fd(handle, field)

    def _close_fd(self, handle: Handle, field: str) -> None:
        fd = getattr(handle, field)
        if fd >= 0:
            self._loop.remove(fd)
            self._kernel.close(fd)
            setattr(handle, field, -1)

    def _release(self, name: str, began_ns: int) -> None:
        self._outputs.unwatch(name)
        with contextlib.suppress(OSError):
            if self._backend.remove(name):
                return
        if self._loop.now_ns() - began_ns < REMOVE_S_MAX * 1e9:
            self._loop.call_later(REMOVE_RETRY_S, lambda: self._release(name, began_ns))
