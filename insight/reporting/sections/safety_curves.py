"""How the figures of a safety suite changed while the network learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from insight.reporting.charts import Chart, Line
from insight.reporting.metrics import curve
from insight.reporting.run_record import RunRecord
from insight.reporting.sections.compared_models import name_of

_MAX_CHARTS = 8
_COLOR, _CONTROL_COLOR = "--line-1", "--line-2"


def safety_charts(run: RunRecord, measures: list[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """A chart for the headline figure of each measure that was taken twice or more during training."""
    charts = []
    for index, measure in enumerate(measures):
        figures = measure.get("figures")
        headline = figures[0] if isinstance(figures, list) and figures else None
        if not isinstance(headline, Mapping):
            continue
        name = f"safety/{measure.get('measure')}/{headline.get('name')}"
        if len(curve(run.metrics, name).steps) < 2:
            continue
        lines = (
            Line("measured", curve(run.metrics, name), _COLOR),
            Line("lower end", curve(run.metrics, f"{name}/low"), _COLOR, faint=True),
            Line("upper end", curve(run.metrics, f"{name}/high"), _COLOR, faint=True),
            Line("control", curve(run.metrics, f"{name}/control"), _CONTROL_COLOR),
        )
        title = f"{name_of(measure, 'measure')}: {name_of(headline)}".replace("_", " ")
        unit = name_of(headline, "unit")
        charts.append(Chart(f"chart-safety-{index}", title, unit, lines, tick_format="0.[000]"))
    return tuple(charts[:_MAX_CHARTS])
