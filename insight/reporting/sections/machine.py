"""The machine, the software and how fast they were."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from insight.reporting.metrics import curve
from insight.reporting.run_record import RunRecord
from insight.reporting.sections.facts import Fact, facts_of, readable, shown
from insight.reporting.sections.section import Section
from insight.runtime.formats import format_bytes, format_count
from insight.runtime.hardware import format_flops

_LABELS = {"num_cores": "cores", "memory_bytes": "memory", "has_compiler": "torch.compile can build"}


def build_machine(run: RunRecord) -> Section | None:
    """What the run measured about its machine, what it chose, and the versions it ran with."""
    rows = [*hardware_facts(run.info.get("hardware")), *_choices(run), *_speed(run), *_versions(run)]
    return Section("machine", "Machine", "facts.html.j2", {"facts": rows}) if rows else None


def hardware_facts(hardware: object) -> list[Fact]:
    """Rows for :class:`insight.runtime.hardware.Hardware` as JSON; none for anything else."""
    if not isinstance(hardware, Mapping):
        return []
    rows: list[Fact] = []
    for key, value in hardware.items():
        if key == "matmul_flops" and isinstance(value, Mapping):
            rates = [(name, rate) for name, rate in value.items() if isinstance(rate, (int, float))]
            rows.extend(Fact(f"matmul, {name}", f"{format_flops(rate)} (measured)") for name, rate in rates)
        elif key == "memory_bytes" and isinstance(value, (int, float)):
            rows.append(Fact("memory", format_bytes(value)))
        else:
            rows.extend(facts_of({_LABELS.get(str(key), str(key)): value}))
    return rows


def _choices(run: RunRecord) -> list[Fact]:
    keys = ("precision", "num_threads", "kernels")
    return [Fact(readable(key), shown(run.info[key])) for key in keys if key in run.info]


def _speed(run: RunRecord) -> list[Fact]:
    rows = []
    speed = _median(curve(run.metrics, "throughput/tokens_per_second").values)
    share = _median(curve(run.metrics, "throughput/matmul_share").values)
    peak = [value for value in curve(run.metrics, "memory/peak_bytes").values if math.isfinite(value)]
    if speed is not None:
        rows.append(Fact("median throughput", f"{format_count(speed)} tokens per second"))
    if share is not None:
        rows.append(Fact("share of the measured matmul rate", f"{share:.0%} (median)"))
    if peak:
        rows.append(Fact("peak memory of the run", format_bytes(max(peak))))
    return rows


def _versions(run: RunRecord) -> list[Fact]:
    versions = [(key, value) for key, value in run.info.items() if key.endswith("_version")]
    return [Fact(key.removesuffix("_version"), shown(value)) for key, value in versions]


def _median(values: tuple[float, ...]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else None
