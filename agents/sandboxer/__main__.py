"""``python -m agents.sandboxer``: the process itself.

Owns: arguments, the lock on the directory, signals, the order of starting and of ending.
Must not know: what a workload is.

SIGTERM and SIGINT stop all workloads (grace, then kill), remove every cgroup and the socket, and
end.  SIGKILL leaves `keep` workloads running, to be adopted by the next sandboxer of the directory.
Exit status: 0 done, 1 it could not start or something could not be removed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import signal
import socket
import sys
import time
from typing import Final

from agents.sandboxer import adoption, isolation, journal_file, linux, protocol
from agents.sandboxer import events as ev
from agents.sandboxer.cgroups import detect
from agents.sandboxer.cgroups.base import CgroupError
from agents.sandboxer.core import Core
from agents.sandboxer.journal import Journal
from agents.sandboxer.kernel import LINUX
from agents.sandboxer.loop import Loop
from agents.sandboxer.network import Network
from agents.sandboxer.network_publish import Publisher
from agents.sandboxer.output import Outputs
from agents.sandboxer.process import Spawner
from agents.sandboxer.requests import Desk
from agents.sandboxer.runtime import Runtime
from agents.sandboxer.server import Server
from agents.sandboxer.trace import Tracer, meta_fields

REMOVE_S_MAX: Final = 10.0
LOCK_WAIT_S: Final = 1.0
"""How long a predecessor that is just ending is waited for."""
READY: Final = b"ready"


class CannotStart(Exception):
    """Why this sandboxer ends at once."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="sandboxer", description="The parent of all workloads of a Skerry node.")
    parser.add_argument("--dir", required=True, help="the agent's directory")
    parser.add_argument("--node", required=True)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--cgroup-root", default="", help="parent of the node's cgroups in each hierarchy")
    parser.add_argument("--cgroups", choices=detect.KINDS, default="auto")
    parser.add_argument("--bridge-subnet", default="", help="of workloads with a bridge network; default: a free one")
    parser.add_argument(
        "--users", default="", help="that workloads are outside, FIRST:COUNT, or off; default: unused ones"
    )
    parser.add_argument("--trace-dir", default="")
    parser.add_argument("--output-bytes-max", type=int, default=8 << 20)
    parser.add_argument("--revision", default="")
    parser.add_argument("--detach", action="store_true", help="return once it listens")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run a sandboxer; returns its exit status."""
    options = parse_arguments(arguments)
    ready = _detach() if options.detach else -1
    try:
        return Sandboxer(options).run(ready)
    except (CannotStart, CgroupError, journal_file.JournalError, OSError) as error:
        _log(f"cannot start: {error}")
        return 1


def _detach() -> int:
    """Go on in a child that is nobody's; the parent returns when the child is ready or ended.

    Returns:
        In the child, a descriptor to write `READY` to.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        os.close(read)
        return write
    os.close(write)
    with open(read, "rb") as pipe:
        os._exit(0 if pipe.read() == READY else 1)


class Sandboxer:
    """Everything of one process, put together."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._directory = os.path.abspath(options.dir)
        os.makedirs(self._directory, exist_ok=True)
        self._lock = _lock(self._directory)
        journal_path = os.path.join(self._directory, protocol.JOURNAL_NAME)
        contents = journal_file.read(journal_path)
        if contents.damaged:
            _log(f"{contents.damaged} records of the journal are damaged; it is kept as {journal_path}.damaged")
        tree = detect.tree_name(options.cgroup_root, options.cluster, options.node)
        self._isolation = isolation.find(options.cgroups, tree, self._directory, options.users)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        recall = adoption.recover(self._isolation.backend, contents.records, LINUX)
        journal_file.rewrite(journal_path, recall.records, keep_damaged=bool(contents.damaged))
        incarnation = os.urandom(8).hex()
        self._loop = Loop()
        trace_path = _trace_path(options.trace_dir, options.node, incarnation[:8])
        self._journal = Journal(
            self._loop,
            journal_path,
            trace_path,
            durable=lambda sequence: self._runtime.dispatch(ev.Journaled(sequence)),
            failed=self._journal_failed,
            recovered=lambda: self._runtime.dispatch(ev.JournalRecovered()),
        )
        self._tracer = Tracer(options.node, incarnation[:8], self._journal.trace if trace_path else None)
        core = Core(recall.memory, self._loop.now_ns())
        hello = {
            "protocol": protocol.PROTOCOL_VERSION,
            "incarnation": incarnation,
            "pid": os.getpid(),
            "boot_id": LINUX.boot_id(),
            "node": options.node,
            "cluster": options.cluster,
            "isolation": self._isolation.level,
            "isolation_why": self._isolation.why,
        }
        self._network = Network(
            options.cluster,
            options.node,
            options.bridge_subnet,
            Publisher(self._loop),
            namespaces=self._isolation.means.namespaces,
            lacking=self._isolation.no_bridge,
        )
        self._server = Server(self._loop, self._directory, self._tracer)
        self._desk = Desk(self._loop, core, hello, self._server.send)
        self._runtime = Runtime(
            loop=self._loop,
            core=core,
            backend=self._isolation.backend,
            journal=self._journal,
            outputs=Outputs(os.path.join(self._directory, protocol.OUTPUT_DIRECTORY), options.output_bytes_max),
            tracer=self._tracer,
            network=self._network,
            kernel=LINUX,
            spawner=Spawner(self._isolation.means),
            environment={"SKERRY_NODE": options.node, "SKERRY_CLUSTER": options.cluster},
            users=self._isolation.users,
            recall=recall,
            say=self._desk.say,
        )
        self._tracer.emit("meta", **meta_fields(options.node, options.revision))
        self._status = 0

    def run(self, ready: int) -> int:
        """Serve until told to end."""
        self._journal.open()
        self._take_signals()
        self._desk.open(self._runtime, self._finish)
        self._server.listen(self._desk.take, self._desk.left)
        self._runtime.begin()
        linux.set_name("skerry-sandbox")
        _log(f"ready; isolation: {self._isolation.level} {self._isolation.why}".rstrip())
        if ready >= 0:
            os.write(ready, READY)
            os.close(ready)
        gc.collect()
        gc.freeze()
        self._loop.run()
        return self._status

    def _take_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._signals = (ours, theirs)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._loop.add_reader(ours.fileno(), self._signalled)

    def _signalled(self) -> None:
        numbers = self._signals[0].recv(4096)
        if signal.SIGCHLD in numbers:
            self._runtime.reap_orphans()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._runtime.dispatch(ev.ShutdownAsked(None, True))

    def _journal_failed(self, why: str) -> None:
        _log(f"the journal cannot be written, starts are refused: {why}")
        self._runtime.dispatch(ev.JournalFailed(why))

    def _finish(self, finish: ev.Finish) -> None:
        if finish.clean and not self._remove_tree():
            _log("some cgroups could not be removed")
            self._status = 1
        if finish.clean:
            try:
                self._network.close()
            except OSError as error:
                _log(f"the bridge could not be removed: {error}")
                self._status = 1
        if finish.clean and self._isolation.users is not None:
            self._isolation.users.close()
        self._journal.close()
        self._server.stop_listening()
        for caller in finish.callers:
            self._desk.answer(caller, {})
        self._server.close()
        self._loop.stop()

    def _remove_tree(self) -> bool:
        backend = self._isolation.backend
        deadline = time.monotonic() + REMOVE_S_MAX
        while True:
            with contextlib.suppress(OSError):
                for name in backend.names():
                    backend.remove(name)
                if backend.remove_tree():
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)


def _lock(directory: str) -> int:
    """Hold the directory: a process's lock, which its children do not inherit."""
    fd = os.open(os.path.join(directory, protocol.LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > deadline:
                os.close(fd)
                raise CannotStart(f"another sandboxer runs in {directory}") from error
            time.sleep(0.01)
        else:
            return fd


def _trace_path(directory: str, node: str, incarnation: str) -> str | None:
    if not directory:
        return None
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, f"{node}-{incarnation}.jsonl")


def _log(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} sandboxer[{os.getpid()}]: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
