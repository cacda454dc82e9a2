"""Everything a run left behind, read once for all sections of the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.reporting.metrics import read_metrics
from insight.reporting.run_info import read_run_info
from insight.reporting.samples import Sample, read_samples
from insight.reporting.summary import Metric, read_summary
from insight.runtime.run_folder import RunFolder


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it; whatever is missing is empty.

    Args:
        folder: Where the files lie.
        info: ``run.json``.
        config: ``config.yaml``, verbatim.
        metrics: ``metrics.jsonl``, one record a step.
        samples: ``samples.jsonl``.
        summary: ``summary.json``.
    """

    folder: Path
    info: dict[str, Any]
    config: str
    metrics: list[dict[str, float]]
    samples: list[Sample]
    summary: dict[str, Metric]

    @property
    def name(self) -> str:
        """``name/number`` of the run."""
        folder = self.folder.absolute()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """What ``run.json`` says about each split of the data: files, documents, bytes, tokens."""
        data = self.info.get("data")
        splits = data.get("splits") if isinstance(data, dict) else None
        if not isinstance(splits, dict):
            return {}
        return {name: values for name, values in splits.items() if isinstance(values, dict)}

    @property
    def num_steps(self) -> int:
        """The last step that anything was logged at."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def seconds(self) -> float:
        """How long the run took by its own clock; 0 when unknown."""
        return max((record.get("seconds", 0.0) for record in self.metrics), default=0.0)


def read_run_record(run: RunFolder) -> RunRecord:
    """Read all files of a run; none of them has to exist."""
    config = run.config_path
    return RunRecord(
        folder=run.path,
        info=read_run_info(run.path),
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        metrics=read_metrics(run.path),
        samples=read_samples(run.path),
        summary=read_summary(run.path),
    )
