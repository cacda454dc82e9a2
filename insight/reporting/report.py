"""``report.html``: one self-contained page that explains a run."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from insight.reporting.run_files import read_run_record
from insight.reporting.sections import SECTIONS, SectionBuilder
from insight.runtime.files import atomic_write_text
from insight.runtime.formats import safe_text
from insight.runtime.run_folder import RunFolder
from insight.runtime.version import __version__

_MAX_PAGE_BYTES = 3_000_000
# How long a single text in the page may be; the next one is tried while the page is too large.
_TEXT_CHARACTERS = (120_000, 4_000, 400)


def write_report(
    run: RunFolder,
    sections: tuple[SectionBuilder, ...] = SECTIONS,
    *,
    title: str | None = None,
    kind: str = "training report",
) -> Path:
    """Write ``report.html`` from the files of the run, and from nothing else.

    The page needs no network and is forbidden to use it by its Content-Security-Policy, which also lets
    only the two scripts written here run (by their SHA-256), so that text written by a network, a file or
    a user stays text even if it should escape its place. Every value is HTML-escaped by the template and
    rid of control characters.

    Args:
        run: The run; any of its files may be missing.
        sections: Functions that make the sections, in the order of the page.
        title: Heading of the page; ``None`` takes the name of the run.
        kind: Sort of the page, shown above its heading.

    Raises:
        OutputError: The page cannot be written.
    """
    record = read_run_record(run)
    built = [section for section in (build(record) for build in sections) if section is not None]
    charts = [chart.to_item() for section in built for chart in section.charts]
    scripts = [_bokeh_script(), _asset("charts.js")] if charts else []
    values = {
        "name": record.name if title is None else title,
        "kind": kind,
        "sections": built,
        "charts": _json_for_html(charts),
        "scripts": scripts,
        "style": _asset("report.css"),
        "policy": _policy(scripts),
        "version": __version__,
    }
    for max_characters in _TEXT_CHARACTERS:
        page = _environment(max_characters).get_template("report.html.j2").render(values)
        if len(page.encode()) < _MAX_PAGE_BYTES:
            break
    atomic_write_text(run.report_path, page)
    return run.report_path


def _environment(max_characters: int) -> Environment:
    """Templates that escape everything they print, and print no control character and no endless text."""

    def harmless(value: Any) -> Any:
        # Markup is the page's own: style, scripts, and what macros have escaped already.
        return value if isinstance(value, Markup) else safe_text(str(value), max_characters)

    return Environment(
        loader=PackageLoader("insight.reporting"),
        autoescape=True,
        finalize=harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _bokeh_script() -> Markup:
    """Bokeh's core, minified; widgets, tables and MathJax, which triple it, are left out."""
    return Markup("\n".join(Resources(mode="inline", components=["bokeh"], minified=True).js_raw))


def _asset(name: str) -> Markup:
    return Markup((files("insight.reporting") / "templates" / name).read_text(encoding="utf-8"))


def _json_for_html(value: Any) -> Markup:
    """JSON that cannot end the ``<script>`` element around it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(scripts: list[Markup]) -> str:
    """The Content-Security-Policy (W3C CSP Level 3): no fetches at all, and no scripts but these."""
    hashes = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes) or "'none'"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            "style-src 'unsafe-inline'",  # Bokeh styles its own elements
            "img-src data:",  # icons of Bokeh's toolbar
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
