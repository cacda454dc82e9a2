"""An output folder that is new and appears complete or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from insight.runtime.errors import OutputError
from insight.runtime.files import publish_folder, writing_to
from insight.runtime.json_files import to_text


def require_new(folder: Path, option: str = "--output") -> None:
    """Refuse an output folder that exists, before any work.

    Raises:
        OutputError: It exists.
    """
    if folder.exists():
        raise OutputError(f"{option}={folder} exists already", "choose another name, or remove it first")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the name ``folder`` when the block ends without an error.

    Raises:
        OutputError: ``folder`` exists already or cannot be written.
    """
    require_new(folder, "the output folder")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    try:
        with writing_to(folder):
            temporary.mkdir(parents=True)
            yield temporary
        if not publish_folder(temporary, folder):
            require_new(folder, "the output folder")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write plain values as JSON that people can read."""
    path.write_text(to_text(value, indent=2) + "\n", encoding="utf-8")
