"""What a run was: command, versions, machine, data, network, and how it ended: ``run.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from insight.reporting.json_files import read_object, write_object


def read_run_info(path: Path) -> dict[str, Any]:
    """Everything recorded about the run; empty when nothing is.

    Args:
        path: The file, or the run folder that holds it.
    """
    return read_object(path / "run.json" if path.is_dir() else path)


def update_run_info(path: Path, *, notes: tuple[str, ...] = (), **values: Any) -> None:
    """Record facts about the run; the other facts stay.

    The report shows these keys: ``command`` (list of arguments), ``started`` and ``finished`` (ISO 8601),
    ``stop_reason``, ``insight_version`` and other ``*_version``, ``hardware``, ``data``, ``parameters``,
    ``network``, ``precision``, ``num_threads``, ``notes``. Others are shown by their name.

    Args:
        path: The ``run.json`` to write.
        notes: Lines to add to ``notes``: what was chosen, skipped, resumed.
        values: Facts by key.

    Raises:
        OutputError: The file cannot be written.
    """
    info = read_object(path)
    if notes:
        earlier = info.get("notes")
        info["notes"] = [*(earlier if isinstance(earlier, list) else []), *notes]
    write_object(path, {**info, **values})
