"""A section of the report, and how values of the run's files, which may be of any kind, become text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from insight.reporting.charts import BarChart, Chart
from insight.reporting.run_files import RunRecord
from insight.reporting.scatter import ScatterChart
from insight.runtime.formats import format_bytes, format_difference, format_latency, safe_text

AnyChart = Chart | ScatterChart | BarChart


@dataclass(frozen=True)
class Section:
    """One part of the page: an anchor, a heading, and a file under ``templates/sections/``.

    The template formats and escapes the values in ``content``, and places the charts with ``chart(…)``.
    """

    identifier: str
    title: str
    template: str
    content: dict[str, Any] = field(default_factory=dict)
    charts: tuple[AnyChart, ...] = ()


# Makes a section of a run, or returns None if the run has nothing to show there.
SectionBuilder = Callable[[RunRecord], Section | None]


_MAX_ROWS = 300
_MAX_NAME_CHARACTERS = 200
_NAME_CHARACTERS = 120
_MAX_VALUE_CHARACTERS = 2_000


@dataclass(frozen=True)
class Fact:
    """One row at indentation level ``depth``; its ``value`` is empty if it is a heading of rows below."""

    name: str
    value: str
    depth: int = 0


def facts_of(values: object, depth: int = 0, derived: Mapping[str, Any] = MappingProxyType({})) -> list[Fact]:
    """Rows for a nested mapping; a ``class_path`` shows its class, with its ``init_args`` below.

    A value that is ``None`` is replaced by the value in ``derived`` that the run used. Without one it has
    no row, since "none" would not say which value was used.
    """
    rows: list[Fact] = []
    for key, value in mapping_of(values).items():
        if value is None and (value := derived.get(str(key))) is None:
            continue
        name = readable(str(key)[:_MAX_NAME_CHARACTERS])
        if isinstance(value, Mapping):
            is_component = "class_path" in value
            rows.append(Fact(name, short_class(value) if is_component else "", depth))
            rows += facts_of(value.get("init_args") if is_component else value, depth + 1, derived)
        else:
            rows.append(Fact(name, shown(value), depth))
        if len(rows) > _MAX_ROWS:
            return [*rows[:_MAX_ROWS], Fact("…", "more in run.json", depth)]
    return rows


def short_class(component: Mapping[str, Any]) -> str:
    """The class name of a component's JSON form."""
    return str(component.get("class_path", "")).rpartition(".")[2]


def readable(key: str) -> str:
    """A field's name in words: ``num_key_value_heads`` becomes ``num key value heads``."""
    return key.replace("_", " ")


def shown(value: Any) -> str:
    """One value as text: yes or no, integers with thousands separators, lists with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value[:100]) + (", …" if len(value) > 100 else "")
    text = str(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[:_MAX_VALUE_CHARACTERS]} …"


def number(value: Any) -> float:
    """The value as a float; NaN if it is not a number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def mapping_of(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def list_of(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def entries_of(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; none if the value is no list."""
    return [entry for entry in list_of(value) if isinstance(entry, Mapping)]


def text_of(value: Any, most: int = 1_000) -> str:
    """At most that many characters of the value's text; empty for ``None``."""
    return "" if value is None else safe_text(str(value), most)


def formed(value: Any, form: str, missing: str = "") -> str:
    """A number in the form of ``str.format``; ``missing`` if the value is not a finite number."""
    return form.format(number(value)) if math.isfinite(number(value)) else missing


def name_of(values: Mapping[str, Any], key: str = "name") -> str:
    """A name of a JSON file, shortened and made safe for a canvas, where no template escapes it."""
    return short_name(safe_text(str(values.get(key, "")), 4_000).replace("\n", " "), _NAME_CHARACTERS)


def short_name(name: str, most: int) -> str:
    """The end of a long name, which is the part of a path that tells files and models apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def difference_of(value: Any) -> tuple[float, float, float] | None:
    """``value``, ``low`` and ``high`` of an object in a JSON file; ``None`` if one is missing."""
    value, low, high = (number(mapping_of(value).get(key)) for key in ("value", "low", "high"))
    return (value, low, high) if all(map(math.isfinite, (value, low, high))) else None


def interval_of(values: Mapping[str, Any]) -> tuple[float, float]:
    """The two ends under ``interval``; NaN if they are missing."""
    ends = [number(end) for end in list_of(values.get("interval"))]
    return (ends[0], ends[1]) if len(ends) == 2 else (math.nan, math.nan)


def _shown_interval(values: Mapping[str, Any]) -> str:
    low, high = interval_of(values)
    return f"{low:.3g} to {high:.3g}" if math.isfinite(low) and math.isfinite(high) else ""


def _shown_difference(value: Any) -> tuple[str, str]:
    """A difference in bits per byte and its interval, with signs."""
    ends = difference_of(value)
    if ends is None:
        return "", ""
    middle, low, high = map(format_difference, ends)
    return middle, f"{low} to {high}"


# Filters of the templates, which take any value of a JSON file.
FILTERS: dict[str, Callable[..., Any]] = {
    "shown": shown,
    "number": formed,
    "bits": lambda value: formed(value, "{:.4f}", "unknown"),
    # Three significant digits; more would be noise with so few cases.
    "figure": lambda value: formed(value, "{:.3g}"),
    "signed": lambda value: formed(value, "{:+.3g}"),
    "rate": lambda value: formed(value, "{:,.0f}", "unknown"),
    "count": lambda value: f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "",
    "size": lambda value: format_bytes(number(value)) if math.isfinite(number(value)) else "",
    "latency": lambda value: format_latency(number(value)),
    "difference": _shown_difference,
    "interval": _shown_interval,
    "name": name_of,
    "text": text_of,
    "words": lambda value: readable(text_of(value)),
}
