"""The final metrics of a run with interval, count and unit: ``summary.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.reporting.json_files import read_object, write_object

# Units of what training logs, by the part of the name behind the slash.
_UNITS = {
    "loss": "nats per token",
    "perplexity": "per token",
    "bits_per_byte": "bits per byte",
    "tokens_per_second": "tokens/s",
    "matmul_share": "of the measured matmul rate",
    "seconds_left": "s",
    "resident_bytes": "bytes",
    "peak_bytes": "bytes",
}


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Args:
        value: The number.
        interval: Lower and upper end of its 95% confidence interval, if one was computed.
        n: How many things it was measured on (bytes, tokens, cases), if that is countable.
        unit: What one of ``value`` is.
    """

    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: str = ""


def unit_of(name: str) -> str:
    """The unit of a metric that training logs, e.g. ``"bits per byte"``; empty when unknown."""
    return _UNITS.get(name.rpartition("/")[2], "")


def read_summary(path: Path) -> dict[str, Metric]:
    """The metrics by name; empty when nothing was measured yet.

    Args:
        path: The file, or the run folder that holds it.
    """
    path = path / "summary.json" if path.is_dir() else path
    recorded = read_object(path).get("metrics")
    metrics = {}
    for name, entry in recorded.items() if isinstance(recorded, dict) else ():
        if not isinstance(entry, dict):
            continue
        n = entry.get("n")
        metrics[name] = Metric(
            value=_number(entry.get("value")),
            interval=_ends(entry.get("interval")),
            n=n if isinstance(n, int) else None,
            unit=str(entry.get("unit") or ""),
        )
    return metrics


def update_summary(path: Path, metrics: Mapping[str, Metric]) -> None:
    """Add metrics to ``summary.json``, or replace those with the same name; the others stay.

    Raises:
        OutputError: The file cannot be written.
    """
    merged = {**read_summary(path), **metrics}
    write_object(path, {"metrics": merged})


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _ends(value: Any) -> tuple[float, float] | None:
    if not (isinstance(value, list) and len(value) == 2):
        return None
    low, high = _number(value[0]), _number(value[1])
    return None if math.isnan(low) or math.isnan(high) else (low, high)
