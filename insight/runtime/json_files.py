"""JSON that every reader accepts, written so that a crash costs at most one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from insight.runtime.files import atomic_write_text, own_file, writing_to


def plain(value: Any) -> Any:
    """``value`` in the types of JSON.

    NaN and the infinities become ``None``, dataclasses become objects, array scalars become numbers, and
    types that JSON does not have (a path, a dtype) become their text.
    """
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy and torch
        return plain(value.tolist())
    return str(value)


def to_text(value: Any, indent: int | None = None) -> str:
    """Any value as JSON text, converted by :func:`plain`.

    The text is ASCII, so that lone surrogates can be written, printed on any console, and read back.
    """
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def to_line(record: Any) -> str:
    """One record as one line."""
    return to_text(record) + "\n"


def print_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON on stdout, as commands do under ``--json``."""
    print(to_text(value, indent))


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append one line to a ``.jsonl`` file, after ending a line that a crash left unfinished."""
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prepare_to_append(path)
        with path.open("a", encoding="ascii") as file:
            file.write(to_line(record))


def prepare_to_append(path: Path) -> None:
    """Separate a file from its hard links, and end its last line if a crash left it without a newline."""
    own_file(path)
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a ``.jsonl`` file without lines that a crash cut short; a missing file is empty."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def read_object(path: Path) -> dict[str, Any]:
    """The object in a ``.json`` file; it is empty if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_object(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a ``.json`` file in one step."""
    atomic_write_text(path, to_text(value, indent=2) + "\n")
