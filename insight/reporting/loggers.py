"""Loggers that write ``metrics.jsonl`` and TensorBoard event files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from insight.reporting.run_files import Sample
from insight.runtime.files import atomic_write_text, writing_to
from insight.runtime.formats import safe_text
from insight.runtime.json_files import prepare_to_append, read_records, to_line


class StepLabels:
    """Labels rows with the number of optimizer steps that the weights have taken.

    Rows that Lightning logs itself have an epoch, and its step is one too low for them. Rows that callbacks
    log keep their step.

    Attributes:
        count_steps: Returns the number of steps taken; ``None`` keeps Lightning's step.
    """

    count_steps: Callable[[], int] | None = None

    def label(self, metrics: Mapping[str, Any], step: int | None) -> int:
        """The label of a row."""
        if self.count_steps is not None and "epoch" in metrics:
            return self.count_steps()
        return 0 if step is None else int(step)

    def begin_training(self, step: int) -> None:
        """Drop rows beyond ``step``, since those steps are repeated.

        If it is not called, the first training row does this for its own step.
        """
        raise NotImplementedError


class MetricsFile(StepLabels, Logger):
    """Writes one JSON object per logged step: ``{"step": 120, "seconds": 31.4, "train/loss": 3.1}``.

    Lines are not buffered, so a killed run keeps its records. The clock starts when the object is made. A
    resumed run appends: its clock continues from the last record that is kept, and records of repeated
    steps are dropped. Testing or validating drops none.

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

    name = "metrics"  # Lightning requires both; the run folder has the name and the number
    version = ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @property
    def seconds(self) -> float:
        """Seconds of the run in this process and in the processes that it was resumed from."""
        return round((self._offset or 0.0) + time.monotonic() - self._start, 3)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one record.

        Raises:
            OutputError: The file cannot be written, e.g. because the disk is full.
        """
        step = self.label(metrics, step)
        if not self._has_trained and any(name.startswith("train/") for name in metrics):
            self.begin_training(step - 1)
        if self._offset is None:
            self._offset = self._seconds_before(step)
        record = {"step": step, "seconds": self.seconds, **metrics}
        with writing_to(self.path):
            self._open().write(to_line(record))

    @rank_zero_only
    def begin_training(self, step: int) -> None:
        """Remove the records beyond ``step``, and set the clock to the last remaining record."""
        self._has_trained = True
        records = read_records(self.path)
        kept = [record for record in records if _step(record) <= step]
        if len(kept) < len(records):
            self.finalize("resumed")
            atomic_write_text(self.path, "".join(map(to_line, kept)))
        if self._offset is None:
            self._offset = self._seconds_before(step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` in the same folder holds them all."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; a later record opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            prepare_to_append(self.path)
            self._file = self.path.open("a", encoding="ascii", buffering=1)
        return self._file

    def _seconds_before(self, step: int) -> float:
        records = [record for record in read_records(self.path) if _step(record) <= step]
        return max((float(record.get("seconds") or 0.0) for record in records), default=0.0)


def _step(record: Mapping[str, Any]) -> int:
    step = record.get("step")
    return step if isinstance(step, int) else 0


_SAMPLE_CHARACTERS = 20_000
# Columns of the HPARAMS tab in every run. TensorBoard reads the list of columns once, at the end of
# training, so columns of the later test must be announced then.
_MEASURES = ("bits_per_byte", "perplexity", "loss")
_TRANSLATION_MEASURES = ("chrf", "bleu", "ter")
_COLUMNS = tuple(f"{split}/{measure}" for split in ("validation", "test") for measure in _MEASURES)


class RunTensorBoard(StepLabels, TensorBoardLogger):
    """Lightning's logger, set up for a run folder.

    Event files lie beside ``config.yaml``, so ``tensorboard --logdir runs`` shows ``name/n`` as the run's
    name. A resumed run adds a file, which makes TensorBoard discard the records of repeated steps.
    Lightning's ``hparams.yaml`` and ``hp_metric = -1`` are not written; :meth:`log_outcome` fills the
    HPARAMS tab instead.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path | str) -> None:
        # Empty name and version: log_dir is the folder itself.
        super().__init__(save_dir=str(folder), name="", version="", default_hp_metric=False)
        self._resumes = any(Path(folder).glob("events.out.tfevents.*"))

    @property
    def log_dir(self) -> str:
        """The run folder, verbatim: Lightning would expand ``$`` and ``~`` in its name."""
        return str(self.save_dir)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars, without the epoch that Lightning adds to each."""
        step = self.label(metrics, step)
        if self._resumes and any(name.startswith("train/") for name in metrics):
            self.begin_training(step - 1)
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: :meth:`log_outcome` writes them with the final metrics."""

    @rank_zero_only
    def log_outcome(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Fill the HPARAMS tab: one row for this run, options on the left, metrics on the right.

        Args:
            config: The nested configuration; its leaves become columns like ``model.network.num_layers``.
            metrics: Final metrics under their logged names, so that the tab links to their curves. Metrics
                that were never logged as scalars are logged now.
            step: Step label of the row.
        """
        from torch.utils.tensorboard.summary import hparams

        options = flatten_options(config)
        super().log_metrics(dict(metrics), step)
        writer = self.experiment._get_file_writer()
        later = (f"test/{name}" for name in _TRANSLATION_MEASURES if f"validation/{name}" in metrics)
        columns = {**dict.fromkeys((*_COLUMNS, *later), 0.0), **metrics}  # only their names are used
        for summary in hparams(options, columns):  # type: ignore[no-untyped-call]
            writer.add_summary(summary, step)
        self.experiment.flush()

    @rank_zero_only
    def log_sample(self, sample: Sample) -> None:
        """Show a sampled text verbatim in the TEXT tab."""
        tag = safe_text(" ".join(sample.prompt.split()), 60) or "no prompt"
        self.log_text(f"samples/{tag}", f"{sample.prompt} ⟶ {sample.text}", sample.step)

    @rank_zero_only
    def log_text(self, tag: str, text: str, step: int) -> None:
        """Show a text verbatim in the TEXT tab.

        TensorBoard renders Markdown; no text can end a code block that is indented by four spaces.
        """
        lines = safe_text(text, _SAMPLE_CHARACTERS).split("\n")
        self.experiment.add_text(tag, "\n".join(f"    {line}" for line in lines), step)

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file."""
        self.experiment.flush()

    @rank_zero_only
    def begin_training(self, step: int) -> None:
        """Make TensorBoard discard records beyond ``step``."""
        if not self._resumes:
            return
        self._resumes = False
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

        restart = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self.experiment._get_file_writer().add_event(restart, step + 1)


def flatten_options(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """The leaves of a nested configuration by dotted name, as the HPARAMS tab takes them.

    For a ``class_path`` with ``init_args``, ``name`` is the class and the arguments lie directly below.
    """
    options: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if key == "init_args" and isinstance(value, Mapping):
            options.update(flatten_options(value, prefix))
        elif key == "class_path" and prefix:
            options[prefix.removesuffix(".")] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            options.update(flatten_options(value, f"{prefix}{key}."))
        elif value is not None:
            options[f"{prefix}{key}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return options
