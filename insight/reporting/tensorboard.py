"""TensorBoard for a run: scalars, samples and hyperparameters, in event files in the run folder itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from insight.reporting.samples import Sample
from insight.runtime.formats import safe_text

_SAMPLE_CHARACTERS = 20_000
# Columns of the HPARAMS tab in every run. TensorBoard reads the list of columns once, when training ends;
# testing comes later, and its columns would never be seen if they were not announced then.
_COLUMNS = tuple(
    f"{split}/{measure}"
    for split in ("validation", "test")
    for measure in ("bits_per_byte", "perplexity", "loss")
)


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger, set up for a run folder.

    Event files lie beside ``config.yaml`` (``tensorboard --logdir runs`` then shows ``name/n`` as the
    run's name). A resumed run appends a file; with its first training scalar, at step s, TensorBoard is
    told to forget what the lost steps beyond s had logged. Lightning's own ``hparams.yaml`` and its
    ``hp_metric = -1`` are not written: :meth:`log_outcome` fills the HPARAMS tab when there is something
    to compare.

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
        if self._resumes and any(name.startswith("train/") for name in metrics):
            self._resumes = False
            self._forget_after(0 if step is None else step)
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing at the start of training; :meth:`log_outcome` writes them with what they led to."""

    @rank_zero_only
    def log_outcome(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Fill the HPARAMS tab: one row for this run, options on the left, metrics on the right.

        Args:
            config: The configuration, nested; its leaves become columns named ``model.network.num_layers``.
            metrics: Final metrics under the names they were logged with, so that the tab links to their
                curves. Those that were never logged as scalars are logged now.
            step: Where on the step axis.
        """
        from torch.utils.tensorboard.summary import hparams

        options = flatten_options(config)
        super().log_metrics(dict(metrics), step)
        writer = self.experiment._get_file_writer()
        columns = {**dict.fromkeys(_COLUMNS, 0.0), **metrics}  # only their names are used
        for summary in hparams(options, columns):  # type: ignore[no-untyped-call]
            writer.add_summary(summary, step)
        self.experiment.flush()

    @rank_zero_only
    def log_sample(self, sample: Sample) -> None:
        """Show a sampled text in the TEXT tab, as it is.

        TensorBoard renders Markdown; a block indented by four spaces is shown verbatim and cannot be left
        by anything inside it.
        """
        text = f"{sample.prompt} ⟶ {sample.text}"
        lines = safe_text(text, _SAMPLE_CHARACTERS).split("\n")
        tag = safe_text(" ".join(sample.prompt.split()), 60) or "no prompt"
        self.experiment.add_text(f"samples/{tag}", "\n".join(f"    {line}" for line in lines), sample.step)

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file."""
        self.experiment.flush()

    def _forget_after(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

        restart = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self.experiment._get_file_writer().add_event(restart, step + 1)


def flatten_options(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """The leaves of a nested configuration by dotted name, as the HPARAMS tab takes them.

    ``class_path``/``init_args`` pairs become ``name = class`` and the arguments directly below ``name``.
    """
    options: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if key == "init_args" and isinstance(value, Mapping):
            options.update(flatten_options(value, prefix))
        elif key == "class_path" and prefix:
            options[prefix.removesuffix(".")] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            options.update(flatten_options(value, f"{prefix}{key}."))
        elif isinstance(value, (bool, int, float, str)):
            options[f"{prefix}{key}"] = value
        elif value is not None:
            options[f"{prefix}{key}"] = str(value)
    return options
