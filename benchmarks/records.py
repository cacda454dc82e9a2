"""Measurements written to a file one by one, so that an interrupted benchmark can continue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Records:
    """A ``.jsonl`` file of measurements; a newer measurement replaces one with the same key.

    Args:
        path: The file, created by the first :meth:`add`.
        key_fields: Fields that identify a measurement.
    """

    def __init__(self, path: Path, key_fields: tuple[str, ...]) -> None:
        self.path = path
        self.key_fields = key_fields
        self._records: dict[tuple[Any, ...], Record] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.endswith("}"):  # a killed run may leave an incomplete line
                    record = json.loads(line)
                    self._records[self._key(record)] = record

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether this measurement has been made."""
        return self._key(key) in self._records

    def add(self, record: Record) -> None:
        """Write a measurement."""
        self._records[self._key(record)] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def forget(self, **fields: Any) -> None:
        """Remove the measurements whose fields have these values."""
        self._records = {
            key: record
            for key, record in self._records.items()
            if any(record.get(name) != value for name, value in fields.items())
        }
        if self.path.exists():
            lines = [json.dumps(record) + "\n" for record in self._records.values()]
            self.path.write_text("".join(lines), encoding="utf-8")

    def select(self, **fields: Any) -> list[Record]:
        """The measurements whose fields have these values, oldest first."""
        return [
            record
            for record in self._records.values()
            if all(record.get(name) == value for name, value in fields.items())
        ]

    def _key(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record.get(name) for name in self.key_fields)


def require_same_machine(folder: Path, machine: str, fresh: bool) -> None:
    """Refuse to mix measurements of two machines; ``machine.txt`` in the folder holds the first machine.

    ``fresh`` skips the check, since earlier measurements are deleted.

    Raises:
        SystemExit: The folder holds measurements of another machine.
    """
    note = folder / "machine.txt"
    earlier = note.read_text(encoding="utf-8").strip() if note.exists() else ""
    if earlier and earlier != machine and not fresh:
        raise SystemExit(f"{folder} holds measurements of {earlier}, and this is {machine}: say --fresh")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(machine + "\n", encoding="utf-8")
