"""Values of options that cannot work are refused where a callback is built, with option and value."""

from __future__ import annotations

import math
from typing import Any

import pytest

from insight.callbacks import (
    AveragedWeights,
    EarlyStopping,
    GracefulInterrupt,
    MemoryMonitor,
    ModelStatistics,
    ProgressLine,
    QuantizeAtEnd,
    RunCheckpoint,
    SafetyEvaluation,
    SampleText,
    StepProfiler,
    ThroughputMonitor,
    TimeBudget,
)
from insight.runtime.errors import ConfigError

COUNTS: list[tuple[Any, str]] = [
    (ModelStatistics, "every_n_steps"),
    (RunCheckpoint, "every_n_steps"),
    (RunCheckpoint, "keep_best"),
    (RunCheckpoint, "keep_every_n_steps"),
    (RunCheckpoint, "keep_last"),
    (SafetyEvaluation, "every_n_validations"),
    (SampleText, "every_n_validations"),
    (StepProfiler, "num_operations"),
    (StepProfiler, "num_steps"),
    (StepProfiler, "start_step"),
    (ThroughputMonitor, "window"),
]
AMOUNTS: list[tuple[Any, str]] = [
    (AveragedWeights, "decay"),
    (GracefulInterrupt, "time_limit"),
    (MemoryMonitor, "clear"),
    (MemoryMonitor, "relax"),
    (MemoryMonitor, "shrink"),
    (ProgressLine, "seconds_between_lines"),
    (QuantizeAtEnd, "max_quality_loss"),
    (QuantizeAtEnd, "seconds"),
    (TimeBudget, "seconds"),
]
WORDS: list[tuple[Any, str, Any]] = [
    (EarlyStopping, "mode", "up"),
    (ModelStatistics, "by", "x"),
    (RunCheckpoint, "mode", "least"),
    (RunCheckpoint, "upload_to", "nowhere://bucket"),
    (SampleText, "prompts", "It is"),
]


@pytest.mark.parametrize(
    ("callback", "option", "value"),
    [(*count, value) for count in COUNTS for value in (-1, 1.5, math.nan, math.inf, True, "3")]
    + [(*amount, value) for amount in AMOUNTS for value in (-0.1, math.nan, math.inf, True, "3")]
    + WORDS,
)
def test_option_and_value_are_named(callback: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as mistake:
        callback(**{option: value})
    assert (mistake.value.option, str(mistake.value.value)) == (option, str(value))
    assert mistake.value.remedy
