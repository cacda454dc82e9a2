"""Models that were measured on the same work, as rows of a table and points of charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from insight.reporting.scatter import Point, ScatterChart
from insight.runtime.formats import format_bytes, format_difference, safe_text

_NAME_CHARACTERS = 120


@dataclass(frozen=True)
class ComparedModel:
    """One model; what was not measured is NaN.

    Args:
        name: What it is called.
        size: Bytes.
        bits_per_byte: Of the common text.
        difference: Bits per byte that it needs more than the first model, and the interval of that.
        tokens_per_second: When it writes.
        is_marked: Whether it is the one that was chosen.
    """

    name: str
    size: float
    bits_per_byte: float
    difference: tuple[float, float, float] | None
    tokens_per_second: float
    is_marked: bool = False


def frontier_charts(
    models: Sequence[ComparedModel], prefix: str, size_of: str, speed_at: str
) -> tuple[ScatterChart, ...]:
    """Quality against size and against speed; a chart that would have no point is left out.

    Args:
        models: The first is the one that the others are compared with.
        prefix: Begins the identifiers.
        size_of: What the size is of, e.g. ``"weights"``.
        speed_at: How the speed was measured, e.g. ``"batch 1"``.
    """
    base = models[0].bits_per_byte if models else math.nan
    charts = (
        ScatterChart(
            f"{prefix}-size",
            "Quality against size",
            "bits per byte",
            f"MB of {size_of} (less is better)",
            tuple(_point(model, model.size / 1e6, base) for model in models),
        ),
        ScatterChart(
            f"{prefix}-speed",
            "Quality against speed",
            "bits per byte",
            f"tokens per second, {speed_at} (more is better)",
            tuple(_point(model, model.tokens_per_second, base) for model in models),
            more_is_better=True,
        ),
    )
    return tuple(chart for chart in charts if chart.num_lost < len(chart.points))


def number(value: Any) -> float:
    """A number of a JSON file, NaN where it is missing or something else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def name_of(values: Mapping[str, Any], key: str = "name") -> str:
    """A name of a JSON file, short and harmless on a canvas too, where no template escapes it."""
    return safe_text(str(values.get(key, "")), _NAME_CHARACTERS).replace("\n", " ")


def difference_of(value: Any) -> tuple[float, float, float] | None:
    """``{"value", "low", "high"}`` of a JSON file; ``None`` where it is incomplete."""
    if not isinstance(value, Mapping):
        return None
    ends = (number(value.get("value")), number(value.get("low")), number(value.get("high")))
    return ends if all(map(math.isfinite, ends)) else None


def shown_bits(bits: float) -> str:
    """Bits per byte with the digits that differences need."""
    return f"{bits:.4f}" if math.isfinite(bits) else "unknown"


def shown_difference(difference: tuple[float, float, float] | None) -> dict[str, str]:
    """``value`` and ``interval`` of a difference in bits per byte, with signs; empty for none."""
    if difference is None:
        return {"value": "", "interval": ""}
    value, low, high = (format_difference(end) for end in difference)
    return {"value": value, "interval": f"{low} to {high}"}


def shown_size(size: float) -> str:
    """A size, empty where it is unknown."""
    return format_bytes(size) if math.isfinite(size) else ""


def _point(model: ComparedModel, x: float, base: float) -> Point:
    spread = None
    if model.difference is not None and math.isfinite(base):
        spread = (base + model.difference[1], base + model.difference[2])
    return Point(model.name, x, model.bits_per_byte, spread, model.is_marked)
