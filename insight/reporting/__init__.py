"""Results of a run: metrics, samples, summary, TensorBoard, and the report page."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.reporting.loggers import MetricsFile as MetricsFile
    from insight.reporting.loggers import RunTensorBoard as RunTensorBoard
    from insight.reporting.report import write_report as write_report
    from insight.reporting.run_files import Metric as Metric
    from insight.reporting.run_files import Sample as Sample
    from insight.reporting.run_files import append_sample as append_sample
    from insight.reporting.run_files import read_metrics as read_metrics
    from insight.reporting.run_files import read_run_info as read_run_info
    from insight.reporting.run_files import read_samples as read_samples
    from insight.reporting.run_files import read_summary as read_summary
    from insight.reporting.run_files import update_run_info as update_run_info
    from insight.reporting.run_files import update_summary as update_summary

__getattr__, __all__ = lazy_exports(__name__)
