"""A section of the report, and the conversion of values in the run's files to its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from insight.reporting.charts import BarChart, Chart
from insight.reporting.run_files import RunRecord
from insight.reporting.scatter import ScatterChart
from insight.runtime.formats import safe_text


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Args:
        identifier: Anchor, unique in the page.
        title: Heading.
        template: File under ``templates/sections/``; it escapes every value in ``content``.
        content: Values that the template shows.
        charts: Charts that the template places with ``chart(…)``.
    """

    identifier: str
    title: str
    template: str
    content: dict[str, Any] = field(default_factory=dict)
    charts: tuple[Chart | ScatterChart | BarChart, ...] = ()


# Makes a section of a run, or returns None if the run has nothing to show there.
SectionBuilder = Callable[[RunRecord], Section | None]


_MAX_ROWS = 300
_MAX_NAME_CHARACTERS = 200
_NAME_CHARACTERS = 120
_TEXT_CHARACTERS = 4_000
_MAX_VALUE_CHARACTERS = 2_000


@dataclass(frozen=True)
class Fact:
    """One row at indentation level ``depth``; its ``value`` is empty if it is a heading of rows below."""

    name: str
    value: str
    depth: int = 0


def facts_of(
    values: Mapping[str, Any], depth: int = 0, derived: Mapping[str, Any] = MappingProxyType({})
) -> list[Fact]:
    """Rows for a nested mapping; a ``class_path`` shows its class, with its ``init_args`` below.

    A value that is ``None`` is replaced by the value in ``derived`` that the run used. Without one it has
    no row, since "none" would not say which value was used.
    """
    rows: list[Fact] = []
    for key, value in values.items():
        if value is None:
            value = derived.get(str(key))
            if value is None:
                continue
        name = readable(str(key)[:_MAX_NAME_CHARACTERS])
        if isinstance(value, Mapping) and "class_path" in value:
            rows.append(Fact(name, short_class(value), depth))
            arguments = value.get("init_args")
            rows.extend(facts_of(arguments, depth + 1, derived) if isinstance(arguments, Mapping) else [])
        elif isinstance(value, Mapping):
            rows.append(Fact(name, "", depth))
            rows.extend(facts_of(value, depth + 1, derived))
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
    """A number of a JSON file; NaN if it is missing or not a number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def name_of(values: Mapping[str, Any], key: str = "name") -> str:
    """A name of a JSON file, shortened and made safe for a canvas, where no template escapes it."""
    return short_name(
        safe_text(str(values.get(key, "")), _TEXT_CHARACTERS).replace("\n", " "), _NAME_CHARACTERS
    )


def short_name(name: str, most: int) -> str:
    """The end of a long name, which is the part of a path that tells files and models apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def difference_of(value: Any) -> tuple[float, float, float] | None:
    """``value``, ``low`` and ``high`` of an object in a JSON file; ``None`` if one is missing."""
    if not isinstance(value, Mapping):
        return None
    ends = (number(value.get("value")), number(value.get("low")), number(value.get("high")))
    return ends if all(map(math.isfinite, ends)) else None
