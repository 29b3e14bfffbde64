"""A state and short words to drive it, for tests of the scheduler's pure half."""

from __future__ import annotations

from typing import Any

from scheduler import commands
from scheduler.engine import draft
from scheduler.model import Capacity, Exit, Limits, ResolvedJob, RestartPolicy, Workload
from scheduler.state import JobResult, NodeResult, PlanResult, State, StatusResult
from scheduler.state.results import LossResult

GIB = 1 << 30
MIB = 1 << 20

OK = Exit(code=0, signal=None, reason="exited", status_known=True)
BAD = Exit(code=1, signal=None, reason="exited", status_known=True)
OOM = Exit(code=None, signal=9, reason="oom", status_known=True)
LOST = Exit(code=None, signal=None, reason="lost", status_known=False)
STOPPED = Exit(code=None, signal=15, reason="stopped", status_known=True)


def job(name: str = "web", **changes: Any) -> ResolvedJob:
    """A job of 1 × (100m, 64Mi, 10 pids); `changes` by field name, `ports` as numbers."""
    ports = changes.pop("ports", ())
    kind = changes.pop("kind", "service")
    workload = Workload(
        job=name,
        namespace=changes.pop("namespace", "default"),
        kind=kind,
        command=changes.pop("command", ("/bin/sleep", "60")),
        env=changes.pop("env", {}),
        limits=changes.pop("limits", Limits(0, 0, 0)),
        ports=tuple((f"p{number}", number) for number in ports),
        grace_s=changes.pop("grace_s", 5),
        on_disconnect=changes.pop("on_disconnect", "keep"),
    )
    values: dict[str, Any] = {
        "replicas": 1,
        "cpu_millicores": 100,
        "memory_bytes": 64 * MIB,
        "pids": 10,
        "restart_policy": RestartPolicy.ALWAYS if kind == "service" else RestartPolicy.ON_FAILURE,
        "backoff_limit": -1 if kind == "service" else 6,
    }
    return ResolvedJob(workload=workload, **(values | changes))


class World:
    """One state, its index and a clock that the test moves."""

    def __init__(self, *nodes: str, cpu: int = 4000, memory: int = 4 * GIB, pids: int = 1000) -> None:
        self.state = State()
        self.now_ms = 1_000_000
        self.log: list[bytes] = []
        self._request = 0
        self._sequence = 0
        for node in nodes:
            self.register(node, cpu=cpu, memory=memory, pids=pids)

    def apply(self, command: commands.Command) -> Any:
        data = commands.encode(command)
        self.log.append(data)
        return self.state.apply(self.state.index + 1, 1, data)

    def register(
        self,
        node: str,
        *,
        cpu: int = 4000,
        memory: int = 4 * GIB,
        pids: int = 1000,
        incarnation: str = "i1",
        boot: str = "b1",
        installation: str = "",
    ) -> NodeResult:
        capacity = Capacity(cpu, memory, pids)
        command = commands.RegisterNode(
            node, incarnation, boot, capacity, "full", "", "10.0.0.1", self.now_ms, installation=installation
        )
        return self.apply(command)

    def submit(self, spec: ResolvedJob, *, request: str | None = None, expected: int = -1) -> JobResult:
        self._request += 1
        return self.apply(commands.SubmitJob(spec, request or f"r{self._request}", expected, self.now_ms))

    def stop(self, name: str = "web", *, request: str | None = None) -> JobResult:
        self._request += 1
        return self.apply(commands.StopJob("default", name, request or f"r{self._request}", self.now_ms))

    def lose(self, *nodes: str) -> LossResult:
        """Declare nodes lost, as the leader of this moment would."""
        losses = []
        for node in nodes:
            entry = self.state.registration(node)
            assert entry is not None, f"{node} is not registered"
            losses.append(commands.Loss(node, entry.incarnation, entry.registered_index, 16_000))
        return self.apply(commands.NodesLost(tuple(losses), "n1", self.now_ms))

    def cordon(self, node: str, state: str = "cordoned") -> NodeResult:
        return self.apply(commands.SetNodeState(node, state, self.now_ms))

    def plan(self, *placements: commands.Placement) -> PlanResult:
        return self.apply(commands.Plan(placements, "n1", "test", self.now_ms))

    def schedule(self, **options: Any) -> PlanResult:
        return self.plan(*draft(self.state, self.now_ms, **options).placements)

    def at(self, allocation: str, node: str, **changes: Any) -> commands.Placement:
        """A placement that is right in everything not said."""
        name = allocation.rpartition(".")[0]
        shown = self.state.allocation(allocation)
        entry = self.state.registration(node)
        values: dict[str, Any] = {
            "allocation": allocation,
            "attempt": (shown["attempt"] if shown else 0) + 1,
            "job_version": self.state.job_version(name),
            "node": node,
            "node_generation": entry.generation if entry else 1,
        }
        return commands.Placement(**(values | changes))

    def report(
        self,
        allocation: str,
        state: str,
        end: Exit | None = None,
        *,
        node: str | None = None,
        epoch: int | None = None,
        sequence: int | None = None,
        incarnation: str = "i1",
    ) -> StatusResult:
        self._sequence += 1
        shown = self.state.allocation(allocation) or {}
        status = commands.AllocationStatus(
            allocation,
            shown["epoch"] if epoch is None else epoch,
            self._sequence if sequence is None else sequence,
            state,
            4242,
            f"/skerry/{allocation}",
            end,
        )
        return self.apply(commands.ReportStatus(node or shown["node"], incarnation, (status,), self.now_ms))

    def runs(self, allocation: str) -> StatusResult:
        return self.report(allocation, "running")

    def ends(self, allocation: str, end: Exit = OK) -> StatusResult:
        return self.report(allocation, "exited", end)

    def shown(self, allocation: str) -> dict[str, Any]:
        found = self.state.allocation(allocation)
        assert found is not None
        return found

    def state_of(self, allocation: str) -> str:
        return str(self.shown(allocation)["state"])

    def free(self, node: str) -> tuple[int, int, int]:
        found = self.state.node(node)
        assert found is not None
        return tuple(
            found["capacity"][key] - found["allocated"][key] for key in ("cpu_millicores", "memory_bytes", "pids")
        )  # type: ignore[return-value]
