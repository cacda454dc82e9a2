"""What the network wrote, last first."""

from __future__ import annotations

from typing import Any

from insight.reporting.metrics import curve
from insight.reporting.run_record import RunRecord
from insight.reporting.samples import Sample
from insight.reporting.sections.section import Section
from insight.runtime.formats import safe_text

_PROMPT_CHARACTERS = 1_000
_TEXT_CHARACTERS = 6_000
_MAX_LAST = 8
_MAX_EARLIER = 24


def build_samples(run: RunRecord) -> Section | None:
    """The samples of the last sampled step at full size, earlier ones folded away below them."""
    if not run.samples:
        return None
    last_step = run.samples[-1].step
    last = [sample for sample in run.samples if sample.step == last_step]
    earlier = [sample for sample in run.samples if sample.step != last_step]
    shown = _spread(earlier, _MAX_EARLIER)
    return Section(
        identifier="samples",
        title="What it writes",
        template="samples.html.j2",
        content={
            "last_step": f"{last_step:,}",
            "last": [_shown(sample, run) for sample in last[:_MAX_LAST]],
            "earlier": [_shown(sample, run) for sample in shown],
            "num_left_out": len(last) - len(last[:_MAX_LAST]) + len(earlier) - len(shown),
        },
    )


def _shown(sample: Sample, run: RunRecord) -> dict[str, Any]:
    bits = curve(run.metrics, "validation/bits_per_byte")
    before = [value for step, value in zip(bits.steps, bits.values, strict=True) if step <= sample.step]
    return {
        "step": f"{sample.step:,}",
        "bits_per_byte": f"{before[-1]:.3f}" if before and before[-1] == before[-1] else "",
        "prompt": safe_text(sample.prompt, _PROMPT_CHARACTERS),
        "text": safe_text(sample.text, _TEXT_CHARACTERS),
    }


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """At most ``count`` samples, evenly from first to last."""
    if len(samples) <= count:
        return samples
    return [samples[round(index * (len(samples) - 1) / (count - 1))] for index in range(count)]
