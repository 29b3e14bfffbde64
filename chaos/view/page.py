"""One self-contained HTML file from a page's data.

Owns: putting template, style, script and data together, and the page's security policy.
Must not know: what the data means.

A trace is untrusted.  Its data travels compressed and in base64, where no text can end a script
or open a tag; the script puts text into the page as text only; and the policy allows exactly
this style and this script, by hash, and no request to anywhere.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from chaos.errors import TraceUnreadable
from chaos.trace.events import Trace
from chaos.trace.explain import explain_trace
from chaos.trace.reader import read_trace
from chaos.view.model import page_data

SCRIPTS = (
    "data.js",
    "causes.js",
    "scale.js",
    "layout.js",
    "paint.js",
    "paint_lanes.js",
    "paint_messages.js",
    "overview.js",
    "pick.js",
    "panel.js",
    "input.js",
    "main.js",
)
EVENTS_MAX = 1_000_000
"""A browser holds this many; longer runs are viewed in parts."""


def view_directory(directory: Path, out: Path) -> int:
    """Write the page of a run's folder; returns the page's size in bytes.

    Raises:
        TraceUnreadable: the folder holds no readable trace, or too long a one.
        OSError: `out` cannot be written.
    """
    trace = read_trace(directory)
    home = directory.absolute()
    page = render(trace, title=home.parent.name if home.name == "trace" else home.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return len(page.encode())


def render(trace: Trace, *, title: str) -> str:
    """The page of a run, as HTML; the same trace gives the same page."""
    if len(trace.events) > EVENTS_MAX:
        raise TraceUnreadable(
            f"{len(trace.events)} events are more than a page holds ({EVENTS_MAX})",
            hint="view a part: copy the files of the processes or the roll-over parts of interest into a folder",
        )
    return assemble(page_data(trace, explain_trace(trace), title=title), title=title)


def assemble(data: dict[str, Any], *, title: str) -> str:
    """Template, style, scripts and data as one document."""
    assets = files("chaos.view") / "assets"
    style = (assets / "page.css").read_text(encoding="utf-8")
    parts = [(assets / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = "'use strict';\n(() => {\n" + "\n".join(parts) + "\n})();\n"
    packed = base64.b64encode(gzip.compress(msgspec.json.encode(data), compresslevel=9, mtime=0)).decode()
    values = {
        "POLICY": html.escape(_policy(style, script)),
        "TITLE": html.escape(title),
        "STYLE": style,
        "DATA": packed,
        "SCRIPT": script,
    }
    page = (assets / "page.html").read_text(encoding="utf-8")
    head, *rest = page.split("@@")
    # the template alternates text and names, so no value is ever searched for names
    return head + "".join(values[part] if place % 2 == 0 else part for place, part in enumerate(rest))


def _policy(style: str, script: str) -> str:
    """Nothing but this style and this script, and no request."""
    return (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
