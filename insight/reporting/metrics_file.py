"""The logger that writes ``metrics.jsonl``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from insight.reporting.json_files import mend_last_line, read_records, to_line
from insight.runtime.files import atomic_write_text, writing_to


class MetricsFile(Logger):
    """Writes one JSON object a logged step: ``{"step": 120, "seconds": 31.4, "train/loss": 3.1}``.

    Every line reaches the file when it is written, so a killed run keeps what it measured. The clock
    starts with the object. A run that goes on in an old folder appends: its clock goes on from the last
    record that counts, and with its first training record, at step s, the records beyond s are dropped,
    since they belong to steps that were lost and are now repeated. Testing or validating never drops.

    Args:
        path: The ``metrics.jsonl`` to write.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)
        self._file: TextIO | None = None
        self._start = time.monotonic()
        self._has_trained = False
        self._offset: float | None = None

    @property
    def name(self) -> str:
        """Required by Lightning; the run folder has the name."""
        return "metrics"

    @property
    def version(self) -> str:
        """Required by Lightning; the run folder has the number."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one record.

        Raises:
            OutputError: The file cannot be written, for instance because the disk is full.
        """
        step = 0 if step is None else int(step)
        if not self._has_trained and any(name.startswith("train/") for name in metrics):
            self._has_trained = True
            self.drop_after(step)
        if self._offset is None:
            self._offset = self._seconds_before(step)
        seconds = round(self._offset + time.monotonic() - self._start, 3)
        record = {"step": step, "seconds": seconds, **metrics}
        with writing_to(self.path):
            self._open().write(to_line(record))

    @rank_zero_only
    def drop_after(self, step: int) -> None:
        """Remove the records beyond ``step``, and set the clock to the last one that stays."""
        records = read_records(self.path)
        kept = [record for record in records if _step(record) <= step]
        if len(kept) < len(records):
            self._close()
            atomic_write_text(self.path, "".join(to_line(record) for record in kept))
        if self._offset is None:
            self._offset = self._seconds_before(step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` in the same folder holds them all."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; a later record opens it again."""
        self._close()

    def _open(self) -> TextIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mend_last_line(self.path)
            self._file = self.path.open("a", encoding="ascii", buffering=1)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _seconds_before(self, step: int) -> float:
        records = [record for record in read_records(self.path) if _step(record) <= step]
        return max((float(record.get("seconds") or 0.0) for record in records), default=0.0)


def _step(record: Mapping[str, Any]) -> int:
    step = record.get("step")
    return step if isinstance(step, int) else 0
