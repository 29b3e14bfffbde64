"""A long, good run for measuring checkers: the mix of events of a simulated seed."""

from __future__ import annotations

from chaos.trace.events import Life
from chaos.trace.records import Record
from tests.support.trace_maker import ALL, TraceMaker


def long_run(rounds: int) -> TraceMaker:
    """Submissions, placements, runs and exits, with the messages that carry them: about 60 events a round."""
    made = TraceMaker()
    for number, node in enumerate((*ALL, "a1", "a2", "client")):
        made.start(node, f"{number:08x}")
    made.elect("n1", ALL)
    for node in ("a1", "a2"):
        made.register(ALL, node, cpu=64_000)
    for turn in range(rounds):
        job, node = f"default/j{turn}", f"a{1 + turn % 2}"
        _messages(made, turn, 20)
        made.submit(ALL, job, f"r{turn}")
        epoch = made.bind(ALL, f"{job}.0", node, 100)
        run = {"allocation": f"{job}.0", "attempt": 1, "epoch": epoch, "pid": 100 + turn, "cgroup": "/x"}
        made.emit(node, "run", do="start", on_disconnect="stop", **run)
        ended = {"code": 0, "signal": None, "reason": "exited", "status_known": True}
        made.emit(node, "run", do="exit", exit=ended, on_disconnect="stop", **run)
        made.release(ALL, f"{job}.0", node, 100, epoch)
    return made


def _messages(made: TraceMaker, turn: int, count: int) -> None:
    for number in range(count // 2):
        target = ("n2", "n3")[number % 2]
        sent = made.emit("n1", "send", m=f"n1/00000000/{turn * count + number}", to=target, type="append", bytes=90)
        made.emit(target, "recv", m=sent["m"], fr="n1", type="append", bytes=90)


def records(made: TraceMaker) -> dict[Life, list[Record]]:
    """The run as a simulator's tracers keep it."""
    common = {"i", "t", "n", "inc", "lc", "hlc", "k"}
    return {
        (life.node, life.inc): [
            (line["i"], (line["hlc"] >> 16) * 1_000_000, line["lc"], line["hlc"], line["k"],
             {key: value for key, value in line.items() if key not in common})
            for line in life.lines
        ]
        for life in made.all
    }  # fmt: skip
