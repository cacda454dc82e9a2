"""Callbacks decide what happens at which moment of a run; other packages do the work itself."""

from insight.callbacks.after_training import QuantizeAtEnd as QuantizeAtEnd
from insight.callbacks.after_training import SafetyEvaluation as SafetyEvaluation
from insight.callbacks.checkpointing import RunCheckpoint as RunCheckpoint
from insight.callbacks.early_stopping import EarlyStopping as EarlyStopping
from insight.callbacks.evaluation_weights import AveragedWeights as AveragedWeights
from insight.callbacks.evaluation_weights import EvaluationWeights as EvaluationWeights
from insight.callbacks.interruption import GracefulInterrupt as GracefulInterrupt
from insight.callbacks.interruption import TrainingInterrupted as TrainingInterrupted
from insight.callbacks.monitors import MemoryMonitor as MemoryMonitor
from insight.callbacks.monitors import ModelStatistics as ModelStatistics
from insight.callbacks.monitors import StepProfiler as StepProfiler
from insight.callbacks.progress_line import ProgressLine as ProgressLine
from insight.callbacks.run_record import RunRecord as RunRecord
from insight.callbacks.sample_text import SampleText as SampleText
from insight.callbacks.start_and_end import EndOfTraining as EndOfTraining
from insight.callbacks.start_and_end import ParameterTable as ParameterTable
from insight.callbacks.start_and_end import ScheduleCheck as ScheduleCheck
from insight.callbacks.throughput import ThroughputMonitor as ThroughputMonitor
from insight.callbacks.throughput import TimeBudget as TimeBudget
