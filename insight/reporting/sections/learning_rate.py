"""What the sweep over learning rates found: ``learning_rate.json``."""

from __future__ import annotations

import math
from typing import Any

from insight.reporting.charts import Chart, Line, smooth
from insight.reporting.json_files import read_object
from insight.reporting.metrics import Curve
from insight.reporting.run_record import RunRecord
from insight.reporting.sections.compared_models import number
from insight.reporting.sections.facts import Fact
from insight.reporting.sections.section import Section
from insight.runtime.formats import format_value
from insight.runtime.run_folder import RunFolder

_MAX_GROUPS = 40


def build_learning_rate(run: RunRecord) -> Section | None:
    """The loss against the multiple of the configured rates, and the rates where it fell fastest."""
    record = read_object(RunFolder(run.folder).learning_rate_path)
    losses = _curve(record.get("multipliers"), record.get("losses"))
    if not losses.steps:
        return None
    steepest = number(record.get("steepest"))
    lines = [Line("loss", losses, "--line-1", faint=True), Line("smoothed", smooth(losses, 0.1), "--line-1")]
    if math.isfinite(steepest):
        ends = (min(losses.values), max(losses.values))
        mark = Curve((steepest,) * 2, (math.nan,) * 2, ends)
        lines.append(Line("falls fastest", mark, "--line-2", dashed=True))
    chart = Chart(
        "chart-sweep",
        "Loss in the sweep",
        "nats per token, against the multiple of the learning rates",
        tuple(lines),
        x_name="multiple",
        x_logarithmic=True,
    )
    return Section(
        identifier="learning-rate",
        title="Learning rate",
        template="learning_rate.html.j2",
        content={"sentence": _sentence(record, steepest), "facts": _rates(record, steepest)},
        charts=(chart,),
    )


def _sentence(record: dict[str, Any], steepest: float) -> str:
    if not math.isfinite(steepest):
        return "The loss did not fall in the sweep: nothing can be said about the learning rate."
    parts = [f"The loss fell fastest at {format_value(steepest)} times the configured learning rates"]
    lowest, diverged = number(record.get("lowest_loss")), number(record.get("diverged"))
    if math.isfinite(lowest):
        parts.append(f"it was lowest at {format_value(lowest)}")
    if math.isfinite(diverged):
        parts.append(f"at {format_value(diverged)} it was worse than untrained")
    return ", ".join(parts) + ". The run used the configured ones."


def _rates(record: dict[str, Any], steepest: float) -> list[Fact]:
    rates = record.get("rates")
    if not isinstance(rates, dict) or not math.isfinite(steepest):
        return []
    shown = [(str(role), number(rate)) for role, rate in list(rates.items())[:_MAX_GROUPS]]
    return [
        Fact(role, f"{format_value(rate)} configured, {format_value(steepest * rate)} there")
        for role, rate in shown
    ]


def _curve(multipliers: Any, losses: Any) -> Curve:
    """The sweep without what cannot be drawn."""
    if not (isinstance(multipliers, list) and isinstance(losses, list)):
        return Curve((), (), ())
    pairs = [(number(x), number(y)) for x, y in zip(multipliers, losses, strict=False)]
    pairs = [(x, y) for x, y in pairs if x > 0 and math.isfinite(x) and math.isfinite(y)]
    return Curve(tuple(x for x, _ in pairs), (math.nan,) * len(pairs), tuple(y for _, y in pairs))
