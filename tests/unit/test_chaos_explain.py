"""The story derives from the events: change the events and the story changes."""

from __future__ import annotations

import re
from pathlib import Path

from chaos.trace.explain import explain_directory, explain_trace
from tests.support.trace_maker import ALL, TraceMaker, good_run


def story(made: TraceMaker, directory: Path) -> str:
    return "\n".join(sentence.text for sentence in explain_trace(made.trace(directory)))


def test_the_story_tells_who_led_who_was_cut_who_died_and_what_was_lost(tmp_path: Path) -> None:
    text = story(good_run(), tmp_path)
    for words in (
        "n1 became leader of term 1 with the votes of n1, n2 and n3",
        "The proxy cut n1 off from n2 and n3: toxic timeout (timeout 0, toxicity 1.0) in both streams of n1~n2",
        "n1 stopped leading term 1",
        "heard no majority for an election timeout",
        "n2 became leader of term 2 with the votes of n2 and n3",
        "not one byte had crossed and 616 bytes had been thrown away",
        "n3 was killed with sigkill",
        "found its log up to index 8 on its disk",
        "n3 had caught up",
        "default/batch.0 was placed on a1 at index 7 by n2",
        "2 attempts of default/web were placed between index 4 and 10: a1 (2); 1 restart among them",
        "5 writes were asked for: 4 acknowledged, 0 refused as certainly not done, 1 left with an unknown outcome",
        "Nothing acknowledged was lost: of 4 acknowledged writes, from r1 to r5",
    ):
        assert words in text, words


def test_every_sentence_names_events_that_exist(tmp_path: Path) -> None:
    made = good_run()
    known = {f"{line['n']}/{line['inc']}/{line['i']}" for line in made.lines()}
    sentences = explain_trace(made.trace(tmp_path))
    assert len(sentences) > 10
    for sentence in sentences:
        assert sentence.refs, sentence.text
        assert set(sentence.refs) <= known, sentence.text


def test_the_story_is_in_the_order_of_time(tmp_path: Path) -> None:
    times = [float(found[0]) for found in re.findall(r"^ *(\d+\.\d{3}) s (.*)$", story(good_run(), tmp_path), re.M)]
    assert len(times) > 10
    assert times == sorted(times)


def test_two_runs_have_two_stories(tmp_path: Path) -> None:
    other = TraceMaker()
    for number, node in enumerate((*ALL, "client")):
        other.start(node, f"{number:08x}")
    other.elect("n3", ALL, why="first to time out")
    other.submit(ALL, "default/x", "q1")
    one, two = story(good_run(), tmp_path / "1"), story(other, tmp_path / "2")
    assert "n3 became leader of term 1 with the votes of n1, n2 and n3 (first to time out)" in two
    for absent in ("cut", "killed", "was placed on", "stopped leading"):
        assert absent in one
        assert absent not in two


def test_bytes_that_crossed_a_cut_are_told_and_so_is_the_violation(tmp_path: Path) -> None:
    made = good_run()
    for heal in made.lines("heal", "proxy")[:2]:
        heal["counters"] = {**heal["counters"], "bytes_since_fault": 21}
    text = story(made, tmp_path)
    assert "42 bytes had crossed" in text
    assert "not one byte" not in text
    assert "VIOLATED link-cut-silent" in text


def test_a_lost_write_is_never_called_safe(tmp_path: Path) -> None:
    made = good_run()
    for line in made.lines("job"):
        if line["request_id"] == "r3":
            line["request_id"] = "r-other"
    text = story(made, tmp_path)
    assert "Nothing acknowledged was lost" not in text
    assert "VIOLATED no-acknowledged-placement-lost" in text


def test_memory_kills_adoptions_and_exits_are_told_from_the_nodes_events(tmp_path: Path) -> None:
    made = good_run()
    run = {"allocation": "default/hog.0", "pid": 5, "cgroup": "/c"}
    oom = {"code": None, "signal": 9, "reason": "oom", "status_known": True}
    made.emit("a1", "run", do="start", attempt=1, epoch=40, **run)
    made.emit("a1", "run", do="exit", attempt=1, epoch=40, exit=oom, **run)
    made.ms += 1000
    made.emit("a1", "run", do="start", attempt=2, epoch=44, **run)
    made.emit("a1", "run", do="adopt", attempt=2, epoch=44, **run)
    done = {"code": 3, "signal": None, "reason": "exited", "status_known": True}
    made.emit("a1", "run", do="exit", attempt=2, epoch=44, exit=done, **run)
    text = story(made, tmp_path)
    assert "default/hog.0 was killed on a1 for passing its memory limit; attempt 2 started 1.0 s after" in text
    assert "The agent of a1 adopted default/hog.0 (pid 5), running for 1 ms by then" in text
    assert "1 attempt of default/hog ended: exited with code 3" in text


def test_a_cut_tail_is_told_as_unknown(tmp_path: Path) -> None:
    made = good_run()
    made.write(tmp_path)
    file = tmp_path / "n3-00000002.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert any("cut in the middle" in sentence.text for sentence in explain_directory(tmp_path))


def test_a_pause_is_told_only_while_somebody_asked(tmp_path: Path) -> None:
    made = good_run()
    made.ms += 20_000
    made.submit(ALL, "default/later", "r7")
    made.emit("client", "fault", id="k9", kind="pause", target="n2", args={}, by={"rule": "sigstop"})
    made.ms += 5_000
    asked = made.emit("client", "op", id="r8", ph="invoke", client="c", op="submit", key="default/z", value={})
    made.ms += 700
    made.submit(ALL, "default/z2", "r9")
    text = story(made, tmp_path)
    end = next(line for line in made.lines("op") if line["id"] == "r9" and line["ph"] == "ok")
    waited = (end["hlc"] - asked["hlc"]) >> 16
    assert f"For {waited} ms no write was acknowledged, though 2 requests asked for one" in text
    assert not re.search(r"For \d+\.\d s no write", text), "nobody asked in the long pauses"


def test_what_a_cut_off_replica_was_asked_counts_from_the_last_toxic_to_the_first_removal(tmp_path: Path) -> None:
    made = good_run()
    last_cut, first_heal = made.lines("fault", "proxy")[-1], made.lines("heal", "proxy")[0]
    for number, (after, offset) in enumerate(((last_cut, -2), (last_cut, 5), (last_cut, 9), (first_heal, 3))):
        fields = {"id": f"x{number}", "client": "client-n1", "op": "submit", "key": "default/x", "value": {}}
        invoked = made.insert("client", "op", after, ph="invoke", **fields)
        invoked["hlc"] = after["hlc"] + (offset << 16)
        if number != 1:
            failed = made.insert("client", "op", invoked, ph="fail", code="no-quorum", **fields)
            failed["hlc"] = invoked["hlc"] + 1
    life = made.lives["client"]
    life.lines.sort(key=lambda line: line["hlc"])
    for number, line in enumerate(life.lines):
        line["i"] = number
    for line in made.lines("fault") + made.lines("heal"):
        if line["n"] == "proxy":
            line["by"]["toxic"] = "s1_" + line["by"]["stream"]
    text = story(made, tmp_path)
    assert "While it was cut off, n1 was asked for 2 writes and acknowledged none of them before the heal" in text
