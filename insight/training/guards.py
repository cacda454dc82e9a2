"""The configuration of the guard against non-finite steps and loss spikes, and the score of a loss."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from insight.checkpoints.format import use_training_weights
from insight.checkpoints.reader import is_resumable
from insight.data.pairs import TranslationBatch
from insight.data.sampling import IGNORED_TARGET
from insight.runtime.component import Component
from insight.runtime.errors import CheckpointError, ConfigError, InsightError
from insight.runtime.files import own_file, writing_to
from insight.runtime.json_files import to_line
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.run_folder import is_complete
from insight.training.lightning_internals import has_loss_scaler
from insight.training.parallel import num_replicas, replica_rank

# The standard deviation of a normal distribution is its median absolute deviation times this.
_NORMAL_DEVIATIONS = 1.4826
# The least deviation, as a share of the median, for a loss that hardly moves.
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class SpikeDetector(Component):
    """Finds losses far above the recent ones.

    The score of a loss is its distance above the median of the recent losses, in units of 1.4826 times
    their median absolute deviation (the modified z-score of Iglewicz and Hoaglin 1993, "How to Detect and
    Handle Outliers"). Up to half of the recent losses may be outliers without hiding the next one, and a
    permanently higher level is accepted once it makes up half of the window.

    Args:
        window: Number of losses that count as recent.
        min_losses: Number of losses needed before the first score.
        threshold: Score from which on a loss is a spike.
        action: ``log`` writes the batch's documents to ``suspicious_batches.jsonl`` in the run folder;
            ``skip`` also skips the step.
    """

    window: int = 128
    min_losses: int = 32
    threshold: float = 6.0
    action: Literal["log", "skip"] = "log"

    def __post_init__(self) -> None:
        require_number("min_losses", self.min_losses, 32, whole=True, at_least=2)
        require_number("window", self.window, 128, whole=True, at_least=self.min_losses)
        require_number("threshold", self.threshold, 6, above=0)
        if self.action not in ("log", "skip"):
            raise ConfigError("unknown action", "use log or skip", option="action", value=self.action)

    def score(self, loss: float, recent: Sequence[float]) -> float | None:
        """The score of a finite loss, given finite recent losses; ``None`` if there are too few of them."""
        if len(recent) < self.min_losses:
            return None
        median = statistics.median(recent)
        deviation = statistics.median(abs(each - median) for each in recent)
        unit = max(_NORMAL_DEVIATIONS * deviation, _SMALLEST_DEVIATION * abs(median)) or math.ulp(1.0)
        return (loss - median) / unit


_ACTIONS = ("stop", "skip", "roll_back")


@dataclass(frozen=True)
class Guard(Component):
    """The reaction to a step whose loss or gradient is NaN or infinite, or whose loss is a spike.

    A skipped step changes neither weights nor optimizer state, but data, step number, learning rate and the
    counters that a schedule-free optimizer keeps in its groups advance. All processes decide alike, since
    they judge the loss of the global batch and the norm of the whole gradient.

    Args:
        non_finite: ``stop`` ends the run with the step's number; ``skip`` skips the step; ``roll_back`` skips
            it too and, after ``num_in_a_row`` of them, restores weights and optimizer state of the last
            checkpoint from before. ``stop`` checks the gradient only if its norm is known, at steps that are
            logged or clipped by norm, and on an accelerator only at logged steps, since the check waits for
            the device; the others check every step.
        num_in_a_row: Number of successive skipped steps at which ``skip`` ends the run and ``roll_back``
            rolls back.
        spikes: The detector of losses far above the recent ones; null for none.
    """

    non_finite: Literal["stop", "skip", "roll_back"] = "stop"
    num_in_a_row: int = 5
    spikes: SpikeDetector | None = None

    def __post_init__(self) -> None:
        if self.non_finite not in _ACTIONS:
            remedy = f"use {', '.join(_ACTIONS)}"
            raise ConfigError("unknown action", remedy, option="guard.non_finite", value=self.non_finite)
        require_number("guard.num_in_a_row", self.num_in_a_row, 5, whole=True, at_least=1)

    @property
    def judges_every_step(self) -> bool:
        """Whether every step has to be checked before it is taken."""
        return self.non_finite != "stop" or self.spikes is not None


FILE_NAME = "suspicious_batches.jsonl"
"""Name of the record in the run folder; ranks above 0 write ``suspicious_batches.rankN.jsonl``."""
_HEAD_TOKENS = 32
_HEAD_CHARACTERS = 80
_SAID_CHARACTERS = 60
_AGAINST_NON_FINITE = (
    "lower the learning rate, set --trainer.gradient_clip_val 1 or --trainer.precision 32-true, "
    "or leave such steps out with --model.guard.non_finite skip"
)


class StepDecision(NamedTuple):
    """Whether the optimizer may take a step, and why the step is suspicious (``""`` if it is not)."""

    is_taken: bool
    reason: str = ""


class StepGuard:
    """Judges the optimizer steps of a run as a :class:`Guard` says, and counts what it did."""

    saved = ("num_skipped", "num_spikes", "num_rolled_back", "num_in_a_row", "went_back", "recent_losses")

    def __init__(self, config: Guard) -> None:
        self.config = config
        self.num_skipped = self.num_spikes = self.num_rolled_back = 0
        self.num_in_a_row = 0  # non-finite steps since the last finite one
        self.spike_score: float | None = None  # of the last loss
        self.went_back = False  # rolled back, with no finite step since
        self.recent_losses: list[float] = []

    def admits(
        self, loss: torch.Tensor, norm: torch.Tensor | None, module: Any, batches: Sequence[Any], logs: bool
    ) -> bool:
        """Whether the optimizer may take the step; the same on every process.

        ``loss`` is that of the global batch, ``norm`` that of the whole gradient, if it was computed; the
        micro-batches of this process are recorded if the step is suspicious. ``logs`` says whether logged
        values reach the loggers. An :class:`InsightError` ends the run.
        """
        if loss.device.type != "cpu" and not (logs or self.config.judges_every_step):
            return True
        trainer = module.trainer
        # A loss scaler skips steps whose gradient overflows in float16 itself.
        magnitude = None if norm is None or has_loss_scaler(trainer) else float(norm)
        decision = self.judge(float(loss), magnitude, trainer.global_step)
        if decision.reason:
            where = record_suspects(module, batches, float(loss), decision)
            how = "is taken all the same" if decision.is_taken else "is left out"
            say(f"guard: {decision.reason} at step {trainer.global_step:,}, which {how}; {where}")
        if logs and self.config.judges_every_step:
            module.log("guard/num_skipped", float(self.num_skipped))
            if self.spike_score is not None:
                module.log("guard/spike_score", self.spike_score)
        return decision.is_taken

    def judge(self, loss: float, norm: float | None, step: int) -> StepDecision:
        """Decide on the step after ``step`` others; loss, norm and errors are as in :meth:`admits`."""
        for name, value in (("loss", loss), ("norm of the gradient", norm)):
            if value is not None and not math.isfinite(value):
                return self._decide_non_finite(f"the {name} is {value}", step)
        self.num_in_a_row, self.went_back = 0, False
        spikes = self.config.spikes
        if spikes is None:
            return StepDecision(is_taken=True)
        score = self.spike_score = spikes.score(loss, self.recent_losses)
        self.recent_losses = [*self.recent_losses, loss][-spikes.window :]
        if score is None or score < spikes.threshold:
            return StepDecision(is_taken=True)
        self.num_spikes += 1
        is_taken = spikes.action == "log"
        self.num_skipped += not is_taken
        reason = f"the loss is {loss:.4g}, {score:.1f} robust deviations above recent ones"
        return StepDecision(is_taken, reason)

    def _decide_non_finite(self, reason: str, step: int) -> StepDecision:
        if self.config.non_finite == "stop":
            raise InsightError(f"{reason} at step {step}", _AGAINST_NON_FINITE)
        self.num_skipped += 1
        self.num_in_a_row += 1
        is_last_chance = self.config.non_finite == "skip" or self.went_back
        if is_last_chance and self.num_in_a_row >= self.config.num_in_a_row:
            although = ", although weights and optimizer had been put back" if self.went_back else ""
            problem = f"{reason} at step {step}, the {self.num_in_a_row}. such step in a row{although}"
            remedy = (
                "the weights rather than the data seem to be at fault: lower the learning rate and resume"
            )
            raise InsightError(problem, f"{remedy} from an earlier checkpoint")
        return StepDecision(is_taken=False, reason=reason)

    def roll_back_if_due(self, trainer: Any) -> None:
        """Restore weights and optimizer state after too many non-finite steps; all processes call this."""
        if self.config.non_finite != "roll_back" or self.num_in_a_row < self.config.num_in_a_row:
            return
        path = _put_back_last_good(trainer)
        self.num_rolled_back += 1
        say(
            f"guard: {self.num_in_a_row} steps in a row without a number; weights and optimizer are those of "
            f"{path} again, data and step go on"
        )
        self.num_in_a_row, self.went_back = 0, True

    def state_dict(self) -> dict[str, Any]:
        """The state that lets a resumed run judge as the uninterrupted one would."""
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name in self.saved:
            setattr(self, name, state[name])


def record_suspects(module: Any, batches: Sequence[Any], loss: float, decision: StepDecision) -> str:
    """Record the documents of a suspicious step, already counted, as a line of JSON; say where it is."""
    trainer = module.trainer
    samples = samples_of(batches, trainer.datamodule, replica_rank(trainer), num_replicas(trainer))
    name = FILE_NAME if trainer.is_global_zero else f"suspicious_batches.rank{trainer.global_rank}.jsonl"
    path = Path(trainer.default_root_dir) / name
    record = {
        "step": trainer.global_step,
        "rank": trainer.global_rank,
        "loss": loss if math.isfinite(loss) else str(loss),  # JSON has no NaN
        "reason": decision.reason,
        "is_taken": decision.is_taken,
        "samples": samples,
    }
    own_file(path)
    with writing_to(path), path.open("a", encoding="utf-8") as file:
        file.write(to_line(record))
    if not samples:
        return f"see {path}"
    heads = [head for sample in samples for head in sample["documents"]] or [""]
    first, last = samples[0]["sample"], samples[-1]["sample"]
    return f"samples {first:,} to {last:,} are in {path}, the first begins {heads[0][:_SAID_CHARACTERS]!r}"


def samples_of(batches: Sequence[Any], data: Any, replica: int, num_of_replicas: int) -> list[dict[str, Any]]:
    """The rows of micro-batches, with their sample numbers in the run and the beginnings of their documents.

    ``batches`` are the last ones that ``data`` has counted, the oldest first. ``replica`` reads every
    ``num_of_replicas``-th sample.
    """
    counts = [num_samples_of(batch, num_of_replicas) for batch in batches]
    position = int(data.state_dict()["num_samples_consumed"]) - sum(counts)
    rows = []
    for batch, count in zip(batches, counts, strict=True):
        heads = _pair_heads(batch, data) if isinstance(batch, TranslationBatch) else _row_heads(batch, data)
        # A sample of windows may consist of several rows; each pair is one, and ranks may differ by one pair.
        own = len(heads) if isinstance(batch, TranslationBatch) else count // num_of_replicas
        for row, documents in enumerate(heads):
            sample = position + row * own // len(heads) * num_of_replicas + replica
            rows.append({"sample": sample, "row": row, "documents": documents})
        position += count
    return rows


def num_samples_of(batch: Any, num_of_replicas: int) -> int:
    """Samples of a training batch on all replicas together."""
    everywhere = getattr(batch, "num_samples_global", None)
    if everywhere is not None:
        return int(everywhere)
    return int(batch.num_samples or len(batch.targets)) * num_of_replicas


def _row_heads(batch: Any, data: Any) -> list[list[str]]:
    inputs = batch.input_ids.cpu()
    documents = [None] * len(inputs) if batch.document_ids is None else batch.document_ids.cpu()
    return [document_heads(ids, own, data.tokenizer) for ids, own in zip(inputs, documents, strict=True)]


def _pair_heads(batch: TranslationBatch, data: Any) -> list[list[str]]:
    """The beginnings of the source and of the target of each pair that counts."""
    counted = (batch.targets != IGNORED_TARGET).any(1).tolist()
    target, source = data.tokenizers
    return [
        [*document_heads(ids, None, source)[:1], *document_heads(written, None, target)[:1]]
        for ids, written, counts in zip(batch.source_ids.cpu(), batch.target_ids.cpu(), counted, strict=True)
        if counts
    ]


def document_heads(input_ids: torch.Tensor, document_ids: torch.Tensor | None, tokenizer: Any) -> list[str]:
    """The beginning of each document of a row ``(sequence,)`` as text, without those that have no text.

    Without ``document_ids``, the end-of-text token separates documents.
    """
    if document_ids is None:
        starts = torch.nonzero(input_ids == tokenizer.end_of_text_id).flatten() + 1
    else:
        starts = torch.nonzero(document_ids[1:] != document_ids[:-1]).flatten() + 1
    bounds = [0, *starts.tolist(), len(input_ids)]
    parts = [input_ids[start : min(stop, start + _HEAD_TOKENS)] for start, stop in itertools.pairwise(bounds)]
    heads = [tokenizer.decode(part.tolist())[:_HEAD_CHARACTERS] for part in parts]
    return [head for head in heads if head]


def _put_back_last_good(trainer: Any) -> Path:
    """Load weights and optimizer state of the last good checkpoint, and nothing else; return its path.

    Every process must call this at the same time, between two steps.
    """
    wait = getattr(trainer.checkpoint_callback, "wait", None)
    if wait is not None:  # for a checkpoint that is still being written
        wait(trainer)
    # The first process searches for all, and also broadcasts a failure to read.
    found, problem = trainer.strategy.broadcast(_search(trainer) if trainer.is_global_zero else (None, ""))
    if problem:
        problem = f"step {trainer.global_step}: going back, {problem}"
        raise CheckpointError(problem, "move that file out of the folder and resume")
    if found is None:
        problem = f"step {trainer.global_step}: there is no checkpoint from before the steps without a number"
        remedy = "set RunCheckpoint's keep_every_n_steps, or use --model.guard.non_finite skip"
        raise InsightError(problem, remedy)
    checkpoint = trainer.strategy.load_checkpoint(found, weights_only=True)
    use_training_weights(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    trainer.strategy.load_optimizer_state_dict(checkpoint)
    for callback in trainer.callbacks:
        put_back = getattr(callback, "put_back", None)
        if put_back is not None:  # an average of the weights has to be restored with them
            put_back(trainer, checkpoint)
    return Path(found)


def _search(trainer: Any) -> tuple[str | None, str]:
    """The latest checkpoint from before non-finite steps, if any, and a file that cannot be read or ``""``.

    Files of later steps, which an earlier run left in the folder, do not count.
    """
    newest = str(getattr(trainer.checkpoint_callback, "last_model_path", ""))
    found: list[tuple[int, str]] = []
    for path in sorted(Path(newest).parent.glob("*.ckpt")) if newest else []:
        if path.name.startswith(".") or not is_complete(path):  # it is being written, or truncated
            continue
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            step = checkpoint["global_step"]
            # Checkpoints that are older than the guard do not have this count.
            num_in_a_row = int(checkpoint["insight"].get("guard", {}).get("num_in_a_row", 0))
        except Exception as error:  # any kind, since the other processes have to be told
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            return None, f"{path} cannot be read ({reason})"
        if is_resumable(checkpoint) and not num_in_a_row and step <= trainer.global_step:
            found.append((step, str(path)))
    return (max(found)[1] if found else None), ""
