"""Thin callbacks: what happens at which moment of a run; the work itself is done in other folders."""

from __future__ import annotations

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.early_stopping import EarlyStopping
from insight.callbacks.evaluation_weights import AveragedWeights, EvaluationWeights
from insight.callbacks.interruption import GracefulInterrupt, TrainingInterrupted
from insight.callbacks.monitors import MemoryMonitor, ModelStatistics, StepProfiler
from insight.callbacks.progress_line import ProgressLine
from insight.callbacks.quantize_at_end import QuantizeAtEnd
from insight.callbacks.run_record import RunRecord
from insight.callbacks.safety_evaluation import SafetyEvaluation
from insight.callbacks.sample_text import SampleText
from insight.callbacks.start_and_end import EndOfTraining, ParameterTable, ScheduleCheck
from insight.callbacks.throughput import ThroughputMonitor
from insight.callbacks.time_budget import TimeBudget

__all__ = [
    "AveragedWeights",
    "EarlyStopping",
    "EndOfTraining",
    "EvaluationWeights",
    "GracefulInterrupt",
    "MemoryMonitor",
    "ModelStatistics",
    "ParameterTable",
    "ProgressLine",
    "QuantizeAtEnd",
    "RunCheckpoint",
    "RunRecord",
    "SafetyEvaluation",
    "SampleText",
    "ScheduleCheck",
    "StepProfiler",
    "ThroughputMonitor",
    "TimeBudget",
    "TrainingInterrupted",
]
