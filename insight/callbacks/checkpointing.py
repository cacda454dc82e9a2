"""The callbacks that write and read checkpoints during a run, by means of :mod:`insight.checkpoints`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from insight.callbacks.interruption import GracefulInterrupt
from insight.callbacks.trainer import (
    callbacks_of,
    datamodule_of,
    is_training,
    is_trial,
    newest_value,
    run_folder_of,
)
from insight.checkpoints import load_weights_into
from insight.checkpoints.reader import tokenizers_of
from insight.checkpoints.upload import check_upload_url, upload_folder
from insight.checkpoints.writer import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    BestScores,
    CheckpointWriter,
    name_of_best,
    name_of_kept,
    name_of_last,
    remove_remains,
)
from insight.interchange.sources import is_foreign
from insight.runtime.errors import ConfigError, OutputError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.run_folder import DEFAULT_ROOT, find_checkpoint
from insight.training.lightning_internals import collect_checkpoint, step_completed, validation_follows


class BestGate(Callback):
    """A callback with a veto against the weights of a validation that has just ended as ``best.ckpt``."""

    blocks_best: bool = False


class RunCheckpoint(Checkpoint):
    """Writes ``best.ckpt`` and ``last.ckpt``, each complete at every moment.

    A checkpoint is written under another name, flushed to the disk and renamed, so a crash, a power cut
    or a full disk in the middle of a save leaves the previous file. ``best.ckpt`` is judged by a metric of
    the validation that has just ended, never by an older value. Files of one step are hard links to one file.

    Args:
        monitor: Logged metric that ``best.ckpt`` is chosen by.
        mode: ``min`` if smaller is better, ``max`` if larger is.
        every_n_steps: Number of optimizer steps between two additional saves of ``last.ckpt``.
        at_validation: Whether to write ``last.ckpt`` after every validation, better or not.
        folder: The folder to write to; ``checkpoints`` in the run folder if not given.
        keep_best: How many of the best checkpoints to keep; with 2 or more they are called
            ``best-STEP.ckpt``, and ``best.ckpt`` is the best of them.
        keep_last: How many of the last checkpoints to keep; with 2 or more they are called
            ``last-STEP.ckpt``, and ``last.ckpt`` is the newest of them.
        keep_every_n_steps: Write ``step-STEP.ckpt`` every this many optimizer steps, and never remove it.
        asynchronous: Copy the state to the host's memory and write it while training continues. This takes
            memory for a second copy of weights and optimizer; a failure ends the run at the next save.
        upload_to: A folder that every file is copied to: a path, or a URL that fsspec knows (``s3://…``, with
            its package installed). A failure is reported, does not end the run, and is tried again at the
            next save.
    """

    def __init__(
        self,
        monitor: str = "validation/bits_per_byte",
        mode: str = "min",
        every_n_steps: int | None = None,
        at_validation: bool = True,
        folder: str | None = None,
        keep_best: int = 1,
        keep_last: int = 1,
        keep_every_n_steps: int | None = None,
        asynchronous: bool = False,
        upload_to: str | None = None,
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError("is neither min nor max", "use min or max", option="mode", value=mode)
        for name, steps in (("every_n_steps", every_n_steps), ("keep_every_n_steps", keep_every_n_steps)):
            require_number(name, steps, "100, or null for none", whole=True, at_least=1, optional=True)
        for name, number in (("keep_best", keep_best), ("keep_last", keep_last)):
            require_number(name, number, 1, whole=True, at_least=1)
        if upload_to is not None:
            check_upload_url(upload_to)
        self.monitor, self.mode = monitor, mode
        self.every_n_steps, self.keep_every_n_steps = every_n_steps, keep_every_n_steps
        self.at_validation, self.keep_best, self.keep_last = at_validation, keep_best, keep_last
        self.folder = Path(folder) if folder else None
        self.asynchronous, self.upload_to = asynchronous, upload_to
        self.best_model_path = self.last_model_path = ""  # Lightning's names; "" before the files exist
        self._scores = BestScores(mode, keep_best)
        self._saved_step = -1
        self._due = False
        self._metric_before: Tensor | None = None
        self._writer: CheckpointWriter | None = None

    @property
    def best_model_score(self) -> float | None:
        """Value of the metric in ``best.ckpt``."""
        return self._scores.best[0] if self._scores.best else None

    @property
    def best_step(self) -> int:
        """Optimizer step of ``best.ckpt``, 0 before it exists."""
        return self._scores.best[1] if self._scores.best else 0

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def state_dict(self) -> dict[str, Any]:
        return {"best_scores": [list(entry) for entry in self._scores.entries]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A run that continues in another folder starts its own best.ckpt there.
        if not self.best_model_path:
            return
        folder = Path(self.best_model_path).parent
        # Older checkpoints hold only the best score.
        score, step = state_dict.get("best_model_score"), state_dict.get("best_step")
        saved = state_dict.get("best_scores", [] if score is None else [[score, step]])
        entries = [(value, step) for value, step in saved]
        there = [entry for entry in entries[1:] if (folder / name_of_best(entry[1])).is_file()]
        self._scores.restore([*entries[:1], *there])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        folder = self.folder or run_folder_of(trainer).checkpoints
        self.folder = folder = Path(trainer.strategy.broadcast(str(folder.absolute())))
        self._scores = BestScores(self.mode, self.keep_best)
        self._saved_step, self._due = -1, False
        paths = [path if (path := folder / name).is_file() else "" for name in (BEST, LAST)]
        self.best_model_path, self.last_model_path = map(str, paths)
        if trainer.is_global_zero and folder.is_dir():
            remove_remains(folder)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()  # for the files that other callbacks save

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not step_completed(trainer):
            return
        step = trainer.global_step
        self._due |= any(n and step % n == 0 for n in (self.every_n_steps, self.keep_every_n_steps))
        self._due |= _interrupted(trainer) or step == trainer.max_steps
        # If a validation comes next, the state after it is saved, since resuming would not repeat it.
        if self._due and not validation_follows(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metric_before = trainer.callback_metrics.get(self.monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_training(trainer):
            return
        is_best = self._judge(trainer)
        is_among_best = trainer.global_step in self._scores.steps
        if is_among_best or self.at_validation or self._due or _interrupted(trainer):
            self._save(trainer, is_best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved_step != trainer.global_step:
            self._save(trainer)
        self.wait(trainer)

    def on_fit_end(self, *_: Any) -> None:
        self._close()  # not earlier: an upload may take long, and the hang watch has ended by now

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        error = self._wait()
        if error is not None:  # it must not hide the exception that ends the run
            say(f"the last checkpoint was not written: {error}")
        self._close()

    def wait(self, trainer: Trainer) -> None:
        """Wait until all saved checkpoints are on the disk, or raise. Every process must call this."""
        _fail_together(trainer, self._wait())

    def _wait(self) -> Exception | None:
        try:
            if self._writer is not None:
                self._writer.wait()
        except Exception as error:
            return error
        return None

    def _judge(self, trainer: Trainer) -> bool:
        """Record the score of the validation that has just ended; return whether it is the best so far."""
        metric = newest_value(trainer, self.monitor)
        if metric is self._metric_before:
            return False  # this validation did not log the metric: the value is an older one
        value = float(metric)
        is_blocked = any(gate.blocks_best for gate in callbacks_of(trainer, BestGate))
        keeps = trainer.strategy.reduce_boolean_decision(self._scores.admits(value) and not is_blocked)
        return keeps and self._scores.add(value, trainer.global_step)

    def _save(self, trainer: Trainer, is_best: bool = False) -> None:
        if is_trial(trainer):
            return
        assert self.folder is not None
        self._due, self._saved_step = False, trainer.global_step
        error: Exception | None = None
        try:
            checkpoint = collect_checkpoint(trainer)
            if trainer.is_global_zero:
                if self._writer is None:
                    url = None if self.upload_to is None else upload_folder(self.upload_to, self.folder)
                    self._writer = CheckpointWriter(self.folder, self.asynchronous, url)
                best_steps = self._scores.steps if self.keep_best > 1 else None
                # An interrupted run has little time left, and its exit code asks for a restart, so a full
                # disk must be noticed before it ends.
                now = _interrupted(trainer)
                names = self._names(trainer.global_step, is_best)
                self._writer.write(checkpoint, names, best_steps, now, self.keep_last)
        except Exception as caught:
            error = caught
        _fail_together(trainer, error)
        self.last_model_path = str(self.folder / LAST)
        if is_best:
            self.best_model_path = str(self.folder / BEST)

    def _names(self, step: int, is_best: bool) -> list[str]:
        names = []
        if self.keep_every_n_steps and step % self.keep_every_n_steps == 0:
            names.append(name_of_kept(step))
        if self.keep_best > 1 and step in self._scores.steps:
            names.append(name_of_best(step))
        if self.keep_last > 1:
            names.append(name_of_last(step))
        # best.ckpt comes first: after a crash in between, last.ckpt does not name a best that does not exist.
        return [*names, BEST, LAST] if is_best else [*names, LAST]

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _fail_together(trainer: Trainer, error: Exception | None) -> None:
    """Raise ``error`` in its process, and end the other processes, which would wait for it forever."""
    everyone_is_fine = trainer.strategy.reduce_boolean_decision(error is None)
    if error is not None:
        raise error
    if not everyone_is_fine:
        raise OutputError("the first process could not write a checkpoint", "see what it says")


def _interrupted(trainer: Trainer) -> bool:
    return any(interrupt.stopping for interrupt in callbacks_of(trainer, GracefulInterrupt))


class InitialWeights(Callback):
    """Loads the weights of a checkpoint before training; optimizer state, position and step start anew.

    It is a ``.ckpt`` file, a run folder, the name of a run in ``root``, or a model of another library
    (``hf:FOLDER``), of the same network and tokenizer.
    """

    def __init__(self, checkpoint: str, root: Path | str = DEFAULT_ROOT) -> None:
        self.checkpoint, self.root = checkpoint, root

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def load(weights: dict[str, Any]) -> None:
            named = {f"network.{name}": tensor for name, tensor in weights.items()}
            trainer.strategy.load_model_state_dict({"state_dict": named}, strict=True)

        if is_foreign(self.checkpoint):
            from insight.interchange.formats import open_foreign, weights_of

            load(weights_of(open_foreign(self.checkpoint)))
            say(f"initial weights: {self.checkpoint}")
            return
        path = find_checkpoint(self.checkpoint, self.root)
        tokenizer, *of_source = tokenizers_of(datamodule_of(trainer))
        load_weights_into(cast(Any, pl_module).network, path, tokenizer, load, *of_source)
        say(f"initial weights: {path}")
