"""Reading ``metrics.jsonl``: the curves of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from insight.reporting.json_files import read_records


@dataclass(frozen=True)
class Curve:
    """One metric over training.

    Args:
        steps: Optimizer steps, ascending; or what else the horizontal axis counts.
        seconds: Seconds since the start of training at each of them.
        values: The metric; NaN where it was not a finite number.
    """

    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    values: tuple[float, ...]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of ``metrics.jsonl``, one a step, ascending.

    What was logged at the same step in several records (training, then validation; or twice, because a
    run was resumed) is merged, and the later value counts. ``null`` comes back as NaN.

    Args:
        path: The file, or the run folder that holds it.
    """
    path = path / "metrics.jsonl" if path.is_dir() else path
    by_step: dict[int, dict[str, float]] = {}
    for record in read_records(path):
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, int):
            continue
        merged = by_step.setdefault(step, {})
        for name, value in record.items():
            if value is None:
                merged[name] = math.nan
            elif isinstance(value, (int, float)):
                merged[name] = value
    return [by_step[step] for step in sorted(by_step)]


def curve(metrics: list[dict[str, float]], name: str) -> Curve:
    """The curve of one metric; empty when it was never logged."""
    records = [record for record in metrics if name in record]
    return Curve(
        steps=tuple(int(record["step"]) for record in records),
        seconds=tuple(record.get("seconds", math.nan) for record in records),
        values=tuple(float(record[name]) for record in records),
    )
