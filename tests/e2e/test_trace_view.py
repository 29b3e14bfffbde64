"""The page in a real browser: it opens alone, draws, answers pointer, keys and address, and stays quick."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from browser import Page, chromium, tab
from trace_maker import good_run
from view_runs import long_run

from chaos.trace.events import Event, Trace
from chaos.trace.reader import read_trace
from chaos.view.page import render

pytestmark = pytest.mark.browser

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
LOAD_MS_MAX = 3000
FRAME_MS_MAX = 50


@pytest.fixture
def good(tmp_path: Path) -> Trace:
    return read_trace(good_run().write(tmp_path / "trace"))


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as address:
        yield address


@pytest.fixture
async def page(browser: str) -> AsyncIterator[Page]:
    async with tab(browser) as opened:
        yield opened
        assert opened.errors == []
        # from a file, and nothing else: no request leaves the page
        assert [each for each in opened.requests if not each.startswith(("file://", "data:", "about:"))] == []


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Trace], str]:
    """Writes a trace's page; returns its address."""

    def write(trace: Trace) -> str:
        file = tmp_path / "page.html"
        file.write_text(render(trace, title="run"))
        return f"file://{file}"

    return write


async def _place(page: Page, kind: str, test: str = "true") -> tuple[int, float, float]:
    """(event, x, y on the screen) of the first event of a kind for which `test` of `e` holds."""
    found = await page.run(f"""(() => {{
      const {{ run, view, layout }} = skerry;
      for (let e = 0; e < run.count; e++) {{
        if (run.name(e) !== '{kind}' || !({test})) continue;
        const box = document.getElementById('chart').getBoundingClientRect();
        return [e, box.left + view.x(run.x[e]), box.top + layout.lanes[run.lane[e]].line - view.scroll];
      }}
    }})()""")
    assert found is not None, f"no {kind} event is in the run"
    return found[0], found[1], found[2]


async def test_the_page_draws_lanes_and_a_click_shows_an_event_with_its_causes(page, written, good):
    await page.open(written(good))
    assert await page.run("skerry.run.count") == len(good.events)
    assert await page.run("document.getElementById('facts').textContent") != ""
    colours = await page.run("""(() => { const c = document.getElementById('chart');
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set();
      for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
      return seen.size; })()""")
    assert colours > 20, "lanes, roles, arrows and words are drawn"
    event, x, y = await _place(page, "role", "run.field(e, 'role') === 'leader' && run.field(e, 'term') === 2")
    await page.click(x, y)
    assert await page.run("skerry.state.picked") == event
    shown = await page.run("document.getElementById('pane-event').textContent")
    ref = good.events[event].ref
    assert ref in shown
    assert "becomes leader in term 2" in shown
    assert f"ev={ref.replace('/', '%2F')}" in await _hash(page)


async def _hash(page: Page) -> str:
    await page.until("location.hash.includes('ev=')")
    return await page.run("location.hash")


async def test_the_past_and_future_of_an_event_follow_messages_and_nothing_else(page, written):
    events = [
        Event((1 << 40) + (ms << 16), node, "1", number, 0.0, kind, fields)
        for ms, node, number, kind, fields in (
            (1, "n1", 1, "note", {"text": "before"}),
            (1, "n3", 1, "note", {"text": "unrelated"}),
            (2, "n1", 2, "send", {"m": "x", "to": "n2", "type": "append"}),
            (3, "n2", 1, "note", {"text": "too early"}),
            (4, "n2", 2, "recv", {"m": "x", "fr": "n1", "type": "append"}),
            (5, "n2", 3, "send", {"m": "y", "to": "n3", "type": "append-reply"}),
            (6, "n3", 2, "recv", {"m": "y", "fr": "n2", "type": "append-reply"}),
            (7, "n1", 3, "note", {"text": "afterwards, unheard"}),
        )
    ]
    trace = Trace(events)
    await page.open(written(trace) + "#ev=n2/1/2")

    async def cone(side: str) -> list[str]:
        members = await page.run(f"[...skerry.state.cone.{side}.member]")
        return [event.ref for event, member in zip(trace.events, members, strict=True) if member]

    assert await cone("past") == ["n1/1/1", "n1/1/2", "n2/1/1", "n2/1/2"]
    assert await cone("future") == ["n2/1/2", "n2/1/3", "n3/1/2"]


async def test_the_address_names_the_view_and_keys_move_it(page, written, good):
    leader = next(event for event in good.events if event.f.get("role") == "leader")
    await page.open(written(good) + f"#t=0.5&w=0.25&ev={leader.ref}")
    first, width = await page.run("[skerry.view.first / 1e6, skerry.view.span * skerry.view.scale / 1e6]")
    assert (round(first, 3), round(width, 3)) == (0.5, 0.25)
    assert await page.run("skerry.run.ref(skerry.state.picked)") == leader.ref
    await page.run("document.getElementById('chart').focus()")
    await page.key("+", "+")
    assert await page.run("skerry.view.span * skerry.view.scale / 1e6") < 0.2
    before = await page.run("skerry.view.first")
    await page.key("ArrowRight")
    assert await page.run("skerry.view.first") > before
    await page.key(".", ".")
    assert await page.run("skerry.run.ref(skerry.state.picked)") != leader.ref
    await page.key("Escape")
    assert await page.run("skerry.state.picked") == -1
    await page.key("f", "f")
    assert await page.run("skerry.view.first <= 0 && skerry.view.last >= skerry.run.end")


async def test_the_wheel_zooms_where_the_pointer_is_and_a_drag_moves(page, written, good):
    await page.open(written(good))
    _, x, y = await _place(page, "fault")
    under = f"skerry.view.us({x} - document.getElementById('chart').getBoundingClientRect().left)"
    before = await page.run(under)
    scale = await page.run("skerry.view.scale")
    await page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    await page.until(f"skerry.view.scale < {scale} / 1.5")
    assert abs(await page.run(under) - before) < scale, "what was under the pointer stays there, to a pixel"
    first = await page.run("skerry.view.first")
    await page.mouse("mousePressed", 600, 500, button="left", buttons=1, clickCount=1)
    await page.mouse("mouseMoved", 500, 500, button="left", buttons=1)
    await page.mouse("mouseReleased", 500, 500, button="left", clickCount=1)
    await page.until(f"skerry.view.first > {first}")
    assert await page.run("skerry.state.picked") == -1, "a drag picks nothing"


async def test_search_finds_text_and_refs(page, written, good):
    await page.open(written(good))
    await page.run("document.getElementById('chart').focus()")
    await page.key("/", "/")
    await page.ask("Input.insertText", text="outcome-unknown")
    await page.until("skerry.state.hits && skerry.state.hits.length === 1")
    assert "1 event" in await page.run("document.getElementById('pane-found').textContent")
    ref = good.events[5].ref
    await page.run(f"(() => {{ const f = document.getElementById('find'); f.value = '{ref}'; f.oninput(); }})()")
    await page.until("skerry.state.picked === 5")


async def test_a_hostile_trace_stays_text(page, written):
    kinds = (
        *("note", "send", "drop", "role", "vote", "commit", "op", "place"),
        *("run", "fault", "heal", "lease", "conn", EVIL),
    )
    names = (
        *("text", "type", "to", "m", "role", "candidate", "why"),
        *("id", "key", "allocation", "node", "target", "kind", EVIL),
    )
    events = [
        Event((1 << 40) + (i << 16), f"n{i % 3}{EVIL}", EVIL, i, 0.0, kind, dict.fromkeys(names, EVIL) | {"do": "bind"})
        for i, kind in enumerate(kinds)
    ]
    await page.open(written(Trace(events)))
    for event in range(len(events)):
        await page.run(f"skerry.actions.pick({event}, true)")
        assert await page.run("document.getElementById('pane-event').textContent.includes('</script>')")
    await page.run("(() => { const f = document.getElementById('find'); f.value = 'onerror'; f.oninput(); })()")
    await page.until("skerry.state.hits && skerry.state.hits.length > 0")
    await page.settle()
    assert await page.run("window.hacked === undefined && document.querySelectorAll('img').length === 0")


async def test_an_empty_trace_says_so_instead_of_failing(page, written):
    await page.open(written(Trace([])))
    assert await page.run("document.getElementById('status').textContent") == "nothing was recorded"
    for key in ("+", "ArrowRight", "Enter", "]", "n"):
        await page.key(key)


@pytest.mark.parametrize(("width", "height"), [(360, 640), (800, 420), (1920, 1080)])
async def test_nothing_overflows_a_window_of_any_size(page, written, good, width, height):
    await page.size(width, height)
    await page.open(written(good))
    wide, tall = await page.run("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert (wide <= width, tall <= height) == (True, True)
    assert await page.run("document.getElementById('chart').clientHeight") > 100


async def test_fifty_thousand_events_load_and_draw_quickly(page, written):
    await page.open(written(long_run(50_000)))
    loaded_ms = await page.run("skerry.loaded_ms")
    assert loaded_ms < LOAD_MS_MAX
    times = await page.run("""(() => { const { view, run } = skerry, times = [];
      for (const width of [1, 0.4, 0.15, 0.05, 0.01, 0.002])
        for (const at of [0, 0.15, 0.35, 0.55, 0.75, 0.95]) {
          view.show(at * run.end, width * run.end);
          const began = performance.now();
          skerry.draw();
          times.push(performance.now() - began);
        }
      skerry.actions.pick(run.count >> 1);
      for (const width of [1, 0.1]) {
        view.show(0, width * run.end);
        const began = performance.now();
        skerry.draw();
        times.push(performance.now() - began);
      }
      return times; })()""")
    quick, slow = statistics.median(times), statistics.quantiles(times, n=10)[8]
    print(f"50,000 events: loaded in {loaded_ms:.0f} ms; a frame takes {quick:.1f} ms (median), {slow:.1f} ms (p90)")
    assert slow < FRAME_MS_MAX
