"""``report.html``: a self-contained page about a run."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined
from markupsafe import Markup

from insight.reporting.run_files import read_run_record
from insight.reporting.sections import SECTIONS, SectionBuilder
from insight.reporting.sections.section import FILTERS, AnyChart
from insight.runtime.files import atomic_write_text
from insight.runtime.formats import safe_text
from insight.runtime.run_folder import RunFolder
from insight.runtime.version import __version__

_MAX_PAGE_BYTES = 3_000_000
# Most characters of a single text in the page; the next value is tried while the page is too large.
_TEXT_CHARACTERS = (120_000, 4_000, 400)


def write_report(
    run: RunFolder,
    sections: tuple[SectionBuilder, ...] = SECTIONS,
    *,
    title: str | None = None,
    kind: str = "training report",
) -> Path:
    """Write ``report.html`` from the files of the run alone, any of which may be missing.

    The template escapes every value and removes control characters. In addition, the page's
    Content-Security-Policy forbids access to the network and any script but the two written here (by
    SHA-256), so text from a model, a file or a user cannot run as code.

    Args:
        run: The run.
        sections: Functions that make the sections, in the order of the page.
        title: Heading of the page; by default the name of the run.
        kind: Kind of the page, shown above its heading.

    Raises:
        OutputError: The page cannot be written.
    """
    record = read_run_record(run)
    built = [section for section in (build(record) for build in sections) if section is not None]
    charts = [_item(chart) for section in built for chart in section.charts]
    # Bokeh's core, minified, without widgets, tables and MathJax, which would triple its size.
    bokeh = Markup("\n".join(Resources(mode="inline", components=["bokeh"], minified=True).js_raw))
    scripts = [bokeh, _asset("charts.js")] if charts else []
    data = json.dumps(charts, allow_nan=False, separators=(",", ":"))
    for sign in "&<>":  # JSON that cannot end the <script> element around it
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    values = {
        "name": record.name if title is None else title,
        "kind": kind,
        "sections": built,
        "charts": Markup(data),
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


@functools.lru_cache(maxsize=64)  # the pages after training and after the test share most of their charts
def _item(chart: AnyChart) -> dict[str, Any]:
    return chart.to_item()


@functools.cache  # it keeps the templates that were compiled
def _environment(max_characters: int) -> Environment:
    """Templates that escape every value, remove its control characters and limit its length."""

    def harmless(value: Any) -> Any:
        # Markup is the page's own style and scripts, and values that macros have already escaped.
        return value if isinstance(value, Markup) else safe_text(str(value), max_characters)

    def of_missing(shown: Callable[..., Any]) -> Callable[..., Any]:
        # The filters take None for what a file lacks.
        return lambda value, *rest: shown(None if isinstance(value, Undefined) else value, *rest)

    environment = Environment(
        loader=PackageLoader("insight.reporting"),
        autoescape=True,
        finalize=harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: of_missing(shown) for name, shown in FILTERS.items()}
    return environment


def _asset(name: str) -> Markup:
    return Markup((files("insight.reporting") / "templates" / name).read_text(encoding="utf-8"))


def _policy(scripts: list[Markup]) -> str:
    """A Content-Security-Policy (W3C CSP Level 3) that allows no fetches and only these scripts."""
    hashes = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes) or "'none'"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            "style-src 'unsafe-inline'",  # Bokeh sets the style of its elements
            "img-src data:",  # icons of Bokeh's toolbar
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
