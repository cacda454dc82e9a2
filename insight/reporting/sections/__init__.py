"""The sections of the report in reading order; a new one is a function added to this list."""

from __future__ import annotations

from insight.reporting.sections.compression import build_compression
from insight.reporting.sections.curves import build_curves
from insight.reporting.sections.data import build_data
from insight.reporting.sections.history import build_history
from insight.reporting.sections.learning_rate import build_learning_rate
from insight.reporting.sections.machine import build_machine
from insight.reporting.sections.network import build_network
from insight.reporting.sections.outcome import build_outcome
from insight.reporting.sections.reproduction import build_reproduction
from insight.reporting.sections.safety import build_safety
from insight.reporting.sections.samples import build_samples
from insight.reporting.sections.section import Section, SectionBuilder
from insight.reporting.sections.stopping import build_stopping

SECTIONS: tuple[SectionBuilder, ...] = (
    build_outcome,
    build_samples,
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
