from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from trace_maker import good_run
from view_runs import long_run

from chaos.errors import TraceUnreadable
from chaos.trace.events import Event, Trace
from chaos.view import page as page_module
from chaos.view.page import render, view_directory
from skerry.cli.root import root

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


class Outline(HTMLParser):
    """Which elements a page has, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def _evil_trace() -> Trace:
    fields = {"text": EVIL, EVIL: EVIL, "type": EVIL, "to": EVIL, "m": EVIL, "role": EVIL, "target": EVIL}
    kinds = ("note", "send", "role", "fault", EVIL)
    return Trace([Event((1 << 40) + i, EVIL, EVIL, i, 0.0, kind, fields) for i, kind in enumerate(kinds)])


@pytest.fixture
def page(tmp_path: Path) -> str:
    return render(good_run().trace(tmp_path / "trace"), title="good")


def test_nothing_in_a_trace_becomes_markup(page):
    evil = render(_evil_trace(), title=EVIL)
    assert Outline(evil).tags == Outline(page).tags
    assert "hacked = 1</script>" not in evil
    assert html.escape(EVIL) in evil, "the title is shown, as text"


def test_the_page_asks_for_nothing_and_its_policy_forbids_it(page):
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", page)
    values = [value for name, value in Outline(page).attributes if name in ("src", "href", "action")]
    assert values == ["data:,"]
    policy = html.unescape(page.split('Content-Security-Policy" content="')[1].split('"')[0])
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_policy_names_exactly_the_style_and_the_script_of_the_page(page):
    policy = html.unescape(page.split('Content-Security-Policy" content="')[1].split('"')[0])
    for opening, closing in (("<style>", "</style>"), ("</script>\n<script>", "</script>")):
        body = page.split(opening)[1].split(closing)[0]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_no_script_writes_markup():
    for file in (Path(page_module.__file__).parent / "assets").glob("*.js"):
        script = file.read_text()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert forbidden not in script, f"{file.name} uses {forbidden}"


def test_the_same_trace_gives_the_same_page(page, tmp_path):
    assert render(good_run().trace(tmp_path / "again"), title="good") == page


def test_the_page_holds_the_whole_run(page):
    packed = page.split('id="data">')[1].split("<")[0]
    raw = base64.b64decode(packed)
    assert raw[4:8] == bytes(4), "no time of writing: the same trace gives the same page at any time"
    data = msgspec.json.decode(gzip.decompress(raw))
    assert data["v"] == 1
    assert data["summary"]["events"] == data["events"]["count"] > 100


def test_fifty_thousand_events_fit_into_six_megabytes():
    trace = long_run(50_000)
    assert len(trace.events) >= 50_000
    assert len(render(trace, title="long").encode()) <= 6_000_000


def test_a_run_longer_than_a_page_holds_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(page_module, "EVENTS_MAX", 100)
    with pytest.raises(TraceUnreadable) as refused:
        render(long_run(200), title="long")
    assert refused.value.hint


def test_the_command_writes_the_page_and_says_where(tmp_path):
    directory = good_run().write(tmp_path / "trace")
    out = tmp_path / "new" / "run.html"
    arguments = ["trace", "view", str(directory), "--out", str(out), "-o", "json"]
    answer = CliRunner().invoke(root, arguments, standalone_mode=False)
    told = msgspec.json.decode(answer.stdout)
    assert (told["v"], told["path"], told["bytes"]) == (1, str(out), out.stat().st_size)
    assert out.read_text().startswith("<!doctype html>")


def test_a_folder_without_a_trace_is_refused(tmp_path):
    with pytest.raises(TraceUnreadable):
        view_directory(tmp_path, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
