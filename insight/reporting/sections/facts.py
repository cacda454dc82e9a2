"""Nested values of ``run.json`` as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MAX_ROWS = 300
_MAX_NAME_CHARACTERS = 200
_MAX_VALUE_CHARACTERS = 2_000


@dataclass(frozen=True)
class Fact:
    """One row.

    Args:
        name: What it is.
        value: What it was; empty for a heading of the rows below.
        depth: How far it is indented.
    """

    name: str
    value: str
    depth: int = 0


def facts_of(values: Mapping[str, Any], depth: int = 0) -> list[Fact]:
    """Rows for a nested mapping; a ``class_path`` shows its class, with its ``init_args`` below."""
    rows: list[Fact] = []
    for key, value in values.items():
        name = readable(str(key)[:_MAX_NAME_CHARACTERS])
        if isinstance(value, Mapping) and "class_path" in value:
            rows.append(Fact(name, short_class(value), depth))
            arguments = value.get("init_args")
            rows.extend(facts_of(arguments, depth + 1) if isinstance(arguments, Mapping) else [])
        elif isinstance(value, Mapping):
            rows.append(Fact(name, "", depth))
            rows.extend(facts_of(value, depth + 1))
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
    """One value: yes and no for truth, thousands apart for whole numbers, a list by commas."""
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
