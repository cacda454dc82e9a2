"""What a section of the report is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from insight.reporting.charts import Chart
from insight.reporting.run_record import RunRecord
from insight.reporting.scatter import ScatterChart


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Args:
        identifier: Its anchor, unique in the page.
        title: Its heading.
        template: File under ``templates/sections/`` that lays it out; everything in ``content`` is escaped
            there.
        content: What the template shows.
        charts: Charts that the template places with ``chart(…)``.
    """

    identifier: str
    title: str
    template: str
    content: dict[str, Any] = field(default_factory=dict)
    charts: tuple[Chart | ScatterChart, ...] = ()


# Makes a section of a run, or nothing when the run has nothing to show there.
SectionBuilder = Callable[[RunRecord], Section | None]
