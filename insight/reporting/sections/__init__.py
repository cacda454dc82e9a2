"""The sections of the report in reading order; a new one is a function added to this list."""

from __future__ import annotations

from insight.reporting.sections.comparison import build_compression
from insight.reporting.sections.outcome import build_outcome, build_samples
from insight.reporting.sections.safety import build_safety
from insight.reporting.sections.section import Section, SectionBuilder
from insight.reporting.sections.setup import (
    build_data,
    build_history,
    build_machine,
    build_network,
    build_reproduction,
)
from insight.reporting.sections.training import build_curves, build_learning_rate, build_stopping
from insight.reporting.sections.translation import build_translation

SECTIONS: tuple[SectionBuilder, ...] = (
    build_outcome,
    build_samples,
    build_translation,
    build_curves,
    build_stopping,
    build_learning_rate,
    build_compression,
    build_safety,
    build_data,
    build_network,
    build_machine,
    build_reproduction,
    build_history,
)

__all__ = ["SECTIONS", "Section", "SectionBuilder"]
