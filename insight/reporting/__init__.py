"""What a run leaves for people: metrics, samples, summary, TensorBoard, and the page that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.reporting.metrics import read_metrics as read_metrics
    from insight.reporting.metrics_file import MetricsFile as MetricsFile
    from insight.reporting.report import write_report as write_report
    from insight.reporting.run_info import read_run_info as read_run_info
    from insight.reporting.run_info import update_run_info as update_run_info
    from insight.reporting.samples import Sample as Sample
    from insight.reporting.samples import append_sample as append_sample
    from insight.reporting.samples import read_samples as read_samples
    from insight.reporting.summary import Metric as Metric
    from insight.reporting.summary import read_summary as read_summary
    from insight.reporting.summary import update_summary as update_summary
    from insight.reporting.tensorboard import RunTensorBoard as RunTensorBoard

_EXPORTS = {
    "Metric": "summary",
    "MetricsFile": "metrics_file",
    "RunTensorBoard": "tensorboard",
    "Sample": "samples",
    "append_sample": "samples",
    "read_metrics": "metrics",
    "read_run_info": "run_info",
    "read_samples": "samples",
    "read_summary": "summary",
    "update_run_info": "run_info",
    "update_summary": "summary",
    "write_report": "report",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
