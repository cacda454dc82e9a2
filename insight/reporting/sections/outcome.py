"""The head of the page: one sentence about the run, and its final numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from insight.reporting.run_files import Metric, RunRecord, Sample, curve, unit_of
from insight.reporting.sections.section import Section, number
from insight.reporting.sections.translation import TRANSLATION_METRICS
from insight.runtime.formats import (
    format_bytes,
    format_count,
    format_duration,
    format_time,
    format_value,
    safe_text,
)

# Key, label and meaning, in reading order.
_MEASURES = (
    (
        "bits_per_byte",
        "Bits per byte",
        "Bits needed to store a byte of the text; comparable across tokenizers.",
    ),
    ("perplexity", "Perplexity", "Between how many tokens the model hesitates; depends on the tokenizer."),
    ("loss", "Loss", "Mean negative log-likelihood in nats per token; depends on the tokenizer."),
)
# The measure of the headline with its form: that of translations where there is one.
_HEADLINES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("chrf", "chrF++", "{:.1f}".format),
    ("bits_per_byte", "bits per byte", format_value),
)
_SPLITS = ("test", "validation")
_SHOWN_ELSEWHERE = ("throughput/", "memory/", "quantization/", "safety/")


def build_outcome(run: RunRecord) -> Section:
    """The size of the network, the duration and quality of training, and why it stopped."""
    finals = _final_metrics(run)
    splits = [split for split in _SPLITS if any(f"{split}/{key}" in finals for key, _, _ in _MEASURES)]
    rows = [
        {
            "label": label,
            "meaning": meaning,
            "cells": [_cell(f"{split}/{key}", finals.get(f"{split}/{key}")) for split in splits],
        }
        for key, label, meaning in _MEASURES
        if any(f"{split}/{key}" in finals for split in splits)
    ]
    tabled = {f"{split}/{key}" for split in splits for key, _, _ in _MEASURES}
    shown_values = {(name.rpartition("/")[2], finals[name].value) for name in tabled if name in finals}

    def repeats(name: str, metric: Metric) -> bool:
        """Whether it is already shown under another name, as the best validation often is."""
        return any(name.endswith(key) and metric.value == value for key, value in shown_values)

    def is_shown_elsewhere(name: str) -> bool:
        return name.startswith(_SHOWN_ELSEWHERE) or name.rpartition("/")[2] in TRANSLATION_METRICS

    content = {
        "sentence": _sentence(run),
        "headline": _headline(finals),
        "splits": [split.capitalize() for split in splits],
        "rows": rows,
        "others": [
            {"label": re.sub("[/_]", " ", name), **_cell(name, metric)}
            for name, metric in finals.items()
            if not (name in tabled or is_shown_elsewhere(name) or repeats(name, metric))
        ],
        "stop_reason": str(run.info.get("stop_reason") or ""),
        "started": format_time(run.info["started"]) if run.info.get("started") else "",
    }
    return Section("outcome", "Outcome", "outcome.html.j2", content)


def _final_metrics(run: RunRecord) -> dict[str, Metric]:
    """``summary.json``, completed by the last validation in ``metrics.jsonl``."""
    metrics = dict(run.summary)
    for name in (f"validation/{key}" for key, _, _ in _MEASURES):
        if name not in metrics and (values := curve(run.metrics, name).values):
            metrics[name] = Metric(values[-1], unit=unit_of(name))
    return metrics


def _sentence(run: RunRecord) -> str:
    """For example: "A network of 2.84 million parameters, trained for 900 steps on 2.9 MB of text."."""
    parameters, size = number(run.info.get("parameters")), number(run.splits.get("train", {}).get("bytes"))
    subject = (
        f"A network of {format_count(parameters)} parameters" if 0 < parameters < math.inf else "A network"
    )
    verb = f"trained for {run.num_steps:,} steps" if run.num_steps else "not trained yet"
    if run.training_seconds > 0:
        verb += f" in {format_duration(run.training_seconds)}"
    if run.seconds > run.training_seconds + 1:
        verb += f" ({format_duration(run.seconds)} with what followed)"
    return f"{subject}, {verb}{f' on {format_bytes(size)} of text' if 0 < size < math.inf else ''}."


def _headline(finals: dict[str, Metric]) -> dict[str, str] | None:
    places = ("on the test text, which it has never seen", "on the validation text")
    for key, unit, shown in _HEADLINES:
        for split, place in zip(_SPLITS, places, strict=True):
            metric = finals.get(f"{split}/{key}")
            if metric is not None and math.isfinite(metric.value):
                interval = " to ".join(map(shown, metric.interval or ()))
                return {"value": shown(metric.value), "unit": unit, "place": place, "interval": interval}
    return None


def _cell(name: str, metric: Metric | None) -> dict[str, str]:
    if metric is None:
        return {"value": "", "interval": "", "unit": "", "n": ""}
    return {
        "value": format_value(metric.value),
        "interval": _interval(metric),
        "unit": metric.unit or unit_of(name),
        "n": f"{metric.n:,}" if metric.n is not None else "",
    }


def _interval(metric: Metric) -> str:
    if metric.interval is None:
        return ""
    low, high = metric.interval
    return f"{format_value(low)} to {format_value(high)}"


_PROMPT_CHARACTERS = 1_000
_SAMPLE_CHARACTERS = 6_000
_MAX_LAST = 8
_MAX_EARLIER = 24


def build_samples(run: RunRecord) -> Section | None:
    """The samples of the last sampled step in full, with earlier samples folded below them."""
    if not run.samples:
        return None
    last_step = run.samples[-1].step
    last = [sample for sample in run.samples if sample.step == last_step]
    earlier = [sample for sample in run.samples if sample.step != last_step]
    shown = earlier
    if len(earlier) > _MAX_EARLIER:  # evenly spaced from first to last
        places = (index * (len(earlier) - 1) / (_MAX_EARLIER - 1) for index in range(_MAX_EARLIER))
        shown = [earlier[round(place)] for place in places]
    content = {
        "last_step": f"{last_step:,}",
        "last": [_shown_sample(sample, run) for sample in last[:_MAX_LAST]],
        "earlier": [_shown_sample(sample, run) for sample in shown],
        "num_left_out": max(0, len(last) - _MAX_LAST) + len(earlier) - len(shown),
    }
    return Section("samples", "What it writes", "samples.html.j2", content)


def _shown_sample(sample: Sample, run: RunRecord) -> dict[str, Any]:
    bits = curve(run.metrics, "validation/bits_per_byte")
    before = [value for step, value in zip(bits.steps, bits.values, strict=True) if step <= sample.step]
    return {
        "step": f"{sample.step:,}",
        "bits_per_byte": f"{before[-1]:.3f}" if before and before[-1] == before[-1] else "",
        "prompt": safe_text(sample.prompt, _PROMPT_CHARACTERS),
        "text": safe_text(sample.text, _SAMPLE_CHARACTERS),
    }
