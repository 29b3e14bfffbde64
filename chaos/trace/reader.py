"""Reading a folder of trace files.

Owns: the file format (JSON lines, DESIGN.md §10), its limits, and what is wrong with a file.
Must not know: what events mean.

A last line that was cut in the middle is the mark of a killed process: its tail is unknown.
Any other line that is not an event is an error that names file and line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from chaos.errors import TraceUnreadable
from chaos.trace.events import Event, Life, Trace

FILES_MAX = 10_000
LINE_BYTES_MAX = 1 << 20
EVENTS_MAX = 10_000_000
TOTAL_BYTES_MAX = 8 << 30

_COMMON = ("i", "t", "n", "lc", "hlc", "inc", "k")
_decoder = msgspec.json.Decoder(dict[str, Any])


def read_trace(directory: Path) -> Trace:
    """Every event of a run, merged.

    Raises:
        TraceUnreadable: no such folder, no trace in it, a damaged line, or a limit passed.
    """
    if not directory.is_dir():
        raise TraceUnreadable(f"{directory} is not a folder", hint="pass the folder that holds the *.jsonl files")
    files = sorted(directory.glob("*.jsonl"))
    if not files:
        raise TraceUnreadable(f"{directory} holds no trace (*.jsonl)", hint="was the run started with a trace folder?")
    if len(files) > FILES_MAX:
        raise TraceUnreadable(f"{directory} holds more than {FILES_MAX} trace files")
    if sum(file.stat().st_size for file in files) > TOTAL_BYTES_MAX:
        raise TraceUnreadable(f"the trace of {directory} is larger than {TOTAL_BYTES_MAX} bytes")
    events: list[Event] = []
    truncated: list[Life] = []
    for file in files:
        cut = _read_file(file, events)
        if cut is not None:
            truncated.append(cut)
    return Trace(events, truncated)


def _read_file(file: Path, events: list[Event]) -> Life | None:
    """Append the file's events; returns whose life it is if its last line was cut."""
    life: Life | None = None
    with file.open("rb") as stream:
        for number, line in enumerate(_lines(stream, file), 1):
            if not line.endswith(b"\n") and not _whole(line):
                return life or _life_of_name(file)
            event = _event(line, file, number)
            if len(events) >= EVENTS_MAX:
                raise TraceUnreadable(f"{file}:{number}: more than {EVENTS_MAX} events")
            events.append(event)
            life = (event.n, event.inc)
    return None


def _lines(stream: BinaryIO, file: Path) -> Any:
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise TraceUnreadable(f"{file}:{number}: a line longer than {LINE_BYTES_MAX} bytes")
        yield line


def _whole(line: bytes) -> bool:
    try:
        _decoder.decode(line)
    except msgspec.MsgspecError:
        return False
    return True


def _life_of_name(file: Path) -> Life:
    node, _, rest = file.stem.rpartition("-")
    return node, rest.partition(".")[0]


def _event(line: bytes, file: Path, number: int) -> Event:
    try:
        fields = _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise TraceUnreadable(
            f"{file}:{number}: not an event: {error}", hint="the file was damaged or edited after the run"
        ) from None
    try:
        i, t, n, lc, hlc, inc, k = (fields.pop(name) for name in _COMMON)
    except KeyError as error:
        raise TraceUnreadable(f"{file}:{number}: an event without {error.args[0]!r}") from None
    numbers = all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 for value in (i, lc, hlc)
    )
    texts = all(isinstance(value, str) for value in (n, inc, k))
    if not numbers or not texts or isinstance(t, bool) or not isinstance(t, int | float):
        raise TraceUnreadable(f"{file}:{number}: a common field of the event has the wrong type")
    return Event(hlc, n, inc, i, float(t), k, fields, lc)
