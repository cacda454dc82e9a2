"""The candidates of a search with their measurements, and the rule that chooses one of them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from insight.optimization.methods import KeptModule
from insight.runtime.errors import InsightError
from insight.runtime.statistics import Interval

ORIGINAL = "original"
"""Name of the first candidate: the trained model, run eagerly."""

# Speeds that differ by less than this factor count as equal: that is the noise on a shared machine.
_SAME_SPEED = 1.05


@dataclass(frozen=True)
class Candidate:
    """A way to run the model and its measurements, which are ``None`` if nothing was measured.

    Attributes:
        name: ``original``, ``int8_dynamic``, ``int8_dynamic + compile``, …
        method: Name of the method, or ``none``.
        status: ``ok``, or ``refused`` by a check, by the compiler or for lack of time.
        reason: Why it was refused.
        disk_bytes: Bytes of its weights, which is also the size of a file with them.
        quality_difference: Bits per byte minus those of the original, paired.
        prefill_seconds: Median time to read a prompt.
        decode_seconds: Median time of one new token.
        compile_seconds: Time of the first calls, which compile.
        pareto: Whether no other candidate is at least as good in quality, size and speed and better in one.
        modules_kept: The modules with parameters that the method did not quantize, and the reasons.
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
        """Plain values for ``report.json``, without memory, which only `insight benchmark` measures."""
        return {**dataclasses.asdict(self), "resident_bytes": None}


def mark_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, with ``pareto`` set for those that no other candidate dominates."""
    measured = [candidate for candidate in candidates if candidate.status == "ok"]
    values = {one.name: _values(one) for one in measured}

    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(map(operator.le, one, other))

    best = [name for name, own in values.items() if not any(dominates(one, own) for one in values.values())]
    return [dataclasses.replace(one, pareto=one.name in best) for one in candidates]


def choose(
    candidates: Sequence[Candidate], max_quality_loss: float, *, may_keep: bool = True
) -> tuple[str, str]:
    """The name of the best candidate within a bound on quality, and the reason in one sentence.

    Eligible are the candidates whose loss (upper end of the 95% interval) is within ``max_quality_loss``, a
    share of the original's bits per byte, and that generate at least as fast as the original, which comes
    first. The fastest of them is chosen, and the smallest among equally fast ones (within 5%). For a smaller
    but slower model the user names the method. Without ``may_keep`` the original is not eligible, and the
    others need not be as fast.

    Raises:
        InsightError: The original may not be chosen, and no other candidate is within the bound.
    """
    original = candidates[0]
    measured = [one for one in candidates if one.status == "ok"]
    good = [one for one in measured if is_good_enough(one, original, max_quality_loss)]
    if may_keep:
        eligible = [one for one in good if _speed(one) * _SAME_SPEED >= _speed(original)]
    else:
        eligible = good[1:]
        if not eligible:
            raise _nothing_good_enough(candidates, max_quality_loss)
    fastest = max(_speed(one) for one in eligible)
    as_fast = [one for one in eligible if _speed(one) * _SAME_SPEED >= fastest]
    best = min(as_fast, key=lambda one: one.disk_bytes or 0)
    if best.name != ORIGINAL:
        return best.name, f"{describe(best, original)}; {max_quality_loss:.2%} is allowed"
    sentence = f"leave the model alone: nothing within {max_quality_loss:.2%} of its bits per byte is as fast"
    smallest = min(good, key=lambda one: one.disk_bytes or 0)
    if smallest.name != ORIGINAL:
        mode = "on" if smallest.compiled else "off"
        sentence += f"; {describe(smallest, original)} (--method {smallest.method} --compile {mode})"
    return ORIGINAL, sentence


def is_good_enough(candidate: Candidate, original: Candidate, max_quality_loss: float) -> bool:
    """Whether the upper end of a candidate's loss is within the bound; true for the original."""
    difference = candidate.quality_difference
    if difference is None:
        return candidate.name == original.name
    return difference.high <= max_quality_loss * _known(original.bits_per_byte)


def describe(candidate: Candidate, original: Candidate) -> str:
    """Speed, size and loss of a candidate in words, and the linear maps that were not quantized."""
    difference, bits = candidate.quality_difference, _known(original.bits_per_byte)
    assert difference is not None
    faster = _speed(candidate) / _speed(original)
    smaller = _known(original.disk_bytes) / _known(candidate.disk_bytes)
    loss, highest = difference.value / bits, max(0.0, difference.high) / bits
    return (
        f"{candidate.name} writes {faster:.2f} times as fast as the original, is {smaller:.2f} times smaller "
        f"and loses {loss:.2%} of bits per byte (surely at most {highest:.2%}){left_as_they_are(candidate)}"
    )


def left_as_they_are(candidate: Candidate) -> str:
    """Text about the linear maps that were not quantized, after a semicolon; "" if there are none."""
    kept = [module for module in candidate.modules_kept if module.is_linear]
    if not kept:
        return ""
    reasons = "; ".join(dict.fromkeys(module.reason for module in kept))
    are = "stays as it is" if len(kept) == 1 else "stay as they are"
    return f"; {len(kept)} of {len(kept) + len(candidate.modules_quantized)} linear maps {are} ({reasons})"


def _nothing_good_enough(candidates: Sequence[Candidate], max_quality_loss: float) -> InsightError:
    original, *others = candidates
    measured = [one for one in others if one.status == "ok"]
    if not measured:
        return InsightError(f"{others[0].name}: {others[0].reason}", "use another method, or --compile off")
    closest = min(measured, key=lambda one: one.quality_difference.high if one.quality_difference else 0.0)
    problem = f"{describe(closest, original)}; that is more than may be lost"
    remedy = "allow more or use another method"
    return InsightError(problem, remedy, option="max_quality_loss", value=max_quality_loss)


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _speed(candidate: Candidate) -> float:
    return _known(candidate.tokens_per_second)


def _values(candidate: Candidate) -> tuple[float, float, float]:
    """Measurements of which smaller is better."""
    return _known(candidate.bits_per_byte), _known(candidate.disk_bytes), 1 / _speed(candidate)
