"""One way to run a model, and what was measured of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from insight.optimization.report import KeptModule
from insight.runtime.statistics import Interval

ORIGINAL = "original"
"""Name of the first candidate: the model as it was trained, eager."""


@dataclass(frozen=True)
class Candidate:
    """A row of the table; ``None`` where nothing was measured.

    Attributes:
        name: ``original``, ``int8_dynamic``, ``int8_dynamic + compile``, …
        method: ``none`` or the method's name.
        compiled: Whether it ran compiled.
        status: ``ok``, or ``refused`` by a check, by the compiler or for want of time.
        reason: Why it was refused.
        disk_bytes: Bytes of its weights, which is what a file of them takes.
        bits_per_byte: On the measured text.
        quality_difference: Bits per byte that it needs more than the original; paired.
        prefill_seconds: Median time to read a prompt.
        decode_seconds: Median time of one new token.
        tokens_per_second: New tokens a second.
        compile_seconds: What its first calls took longer because of compiling.
        pareto: Whether nothing else is at least as good in quality, size and speed and better in one.
        modules_quantized: Names.
        modules_kept: Names and reasons.
    """

    name: str
    method: str
    compiled: bool
    status: Literal["ok", "refused"] = "ok"
    reason: str = ""
    disk_bytes: int | None = None
    bits_per_byte: float | None = None
    quality_difference: Interval | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    tokens_per_second: float | None = None
    compile_seconds: float | None = None
    pareto: bool = False
    modules_quantized: tuple[str, ...] = ()
    modules_kept: tuple[KeptModule, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Plain values for ``report.json``; memory is measured by `insight benchmark`, in fresh processes."""
        return {**dataclasses.asdict(self), "resident_bytes": None}


def values(candidate: Candidate) -> tuple[float, float, float]:
    """Bits per byte, bytes and seconds a token of a measured candidate: smaller is better in each."""
    assert candidate.bits_per_byte is not None
    assert candidate.disk_bytes is not None
    assert candidate.tokens_per_second is not None
    return candidate.bits_per_byte, float(candidate.disk_bytes), 1 / candidate.tokens_per_second
