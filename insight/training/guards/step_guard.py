"""Judges every optimizer step before it is taken, records suspicious ones, and rolls back."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from insight.checkpoints.format import use_training_weights
from insight.data.loaders import LanguageModelBatch
from insight.runtime.errors import CheckpointError, InsightError
from insight.runtime.files import writing_to
from insight.runtime.messages import say
from insight.runtime.run_folder import is_complete
from insight.training.guards.guard import Guard
from insight.training.parallel import num_replicas, replica_rank

FILE_NAME = "suspicious_batches.jsonl"
"""In the run folder; processes other than the first write ``suspicious_batches.rankN.jsonl``."""
_HEAD_TOKENS = 32
_HEAD_CHARACTERS = 80
_SAID_CHARACTERS = 60


def record_suspects(
    module: Any, batches: Sequence[LanguageModelBatch], loss: float, reason: str, is_taken: bool
) -> str:
    """Write down what this process saw of a step.

    Args:
        module: In training; its data module stands behind the batches.
        batches: Micro-batches of the step, on this process.
        loss: Of the global batch.
        reason: Why the step is suspicious.
        is_taken: Whether the optimizer takes it.

    Returns:
        Where it was written and what the first document is, for people.

    Raises:
        OutputError: It cannot be written.
    """
    trainer = module.trainer
    samples = samples_of(batches, trainer.datamodule, replica_rank(trainer), num_replicas(trainer))
    path = Path(trainer.default_root_dir) / (
        FILE_NAME if trainer.is_global_zero else f"suspicious_batches.rank{trainer.global_rank}.jsonl"
    )
    record = {
        "step": trainer.global_step,
        "rank": trainer.global_rank,
        "loss": loss if math.isfinite(loss) else str(loss),  # JSON has no NaN
        "reason": reason,
        "is_taken": is_taken,
        "samples": samples,
    }
    with writing_to(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if not samples:
        return f"see {path}"
    heads = [head for sample in samples for head in sample["documents"]] or [""]
    first, last = samples[0]["sample"], samples[-1]["sample"]
    return f"samples {first:,} to {last:,} are in {path}, the first begins {heads[0][:_SAID_CHARACTERS]!r}"


def samples_of(
    batches: Sequence[LanguageModelBatch], data: Any, replica: int, num_of_replicas: int
) -> list[dict[str, Any]]:
    """The rows of micro-batches: which sample of the run each is, and how its documents begin.

    Args:
        batches: The last ones that were counted, oldest first.
        data: The data module whose position is behind them.
        replica: Number of this copy of the network, which has every ``num_of_replicas``-th sample.
        num_of_replicas: Copies that read different text.
    """
    counts = [batch.num_samples or len(batch.input_ids) for batch in batches]
    position = int(data.state_dict()["num_samples_consumed"]) - sum(counts) * num_of_replicas
    rows = []
    for batch, count in zip(batches, counts, strict=True):
        inputs = batch.input_ids.cpu()
        documents = None if batch.document_ids is None else batch.document_ids.cpu()
        for row, ids in enumerate(inputs):
            # A sample may have been cut into several rows.
            sample = position + row * count // len(inputs) * num_of_replicas + replica
            own = None if documents is None else documents[row]
            rows.append({"sample": sample, "row": row, "documents": document_heads(ids, own, data.tokenizer)})
        position += count * num_of_replicas
    return rows


def document_heads(input_ids: torch.Tensor, document_ids: torch.Tensor | None, tokenizer: Any) -> list[str]:
    """How each document of a row begins, as text; what holds no text is left out.

    Args:
        input_ids: int64 ``(sequence,)``.
        document_ids: int64 ``(sequence,)``, or ``None`` where the end-of-text token separates documents.
        tokenizer: That of the data.
    """
    if document_ids is None:
        starts = torch.nonzero(input_ids == tokenizer.end_of_text_id).flatten() + 1
    else:
        starts = torch.nonzero(document_ids[1:] != document_ids[:-1]).flatten() + 1
    bounds = [0, *starts.tolist(), len(input_ids)]
    heads = []
    for start, stop in itertools.pairwise(bounds):
        ids = input_ids[start : min(stop, start + _HEAD_TOKENS)].tolist()
        text = tokenizer.decode(ids)[:_HEAD_CHARACTERS]
        if text:
            heads.append(text)
    return heads


def put_back_last_good(trainer: Any) -> Path:
    """Load weights and optimizer state of the last good checkpoint; everything else goes on as it is.

    Every process must ask at the same time.

    Args:
        trainer: Lightning's, between two steps.

    Returns:
        The checkpoint.

    Raises:
        InsightError: There is none.
        CheckpointError: One of them cannot be read.
    """
    wait = getattr(trainer.checkpoint_callback, "wait", None)
    if wait is not None:  # for what is still being written
        wait(trainer)
    # The others wait for what the first process finds, and for what it could not read too.
    found, problem = trainer.strategy.broadcast(_search(trainer) if trainer.is_global_zero else (None, ""))
    if problem:
        raise CheckpointError(
            f"step {trainer.global_step}: going back, {problem}",
            "move that file out of the folder and resume",
        )
    if found is None:
        raise InsightError(
            f"step {trainer.global_step}: there is no checkpoint from before the steps without a number",
            "set RunCheckpoint's keep_every_n_steps, or use --model.guard.non_finite skip",
        )
    checkpoint = trainer.strategy.load_checkpoint(found, weights_only=True)
    use_training_weights(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    trainer.strategy.load_optimizer_state_dict(checkpoint)
    for callback in trainer.callbacks:
        put_back = getattr(callback, "put_back", None)
        if put_back is not None:  # an average of the weights is spoilt with them
            put_back(trainer, checkpoint)
    return Path(found)


def _search(trainer: Any) -> tuple[str | None, str]:
    """The checkpoint of the latest step that was not saved between steps that had been left out.

    Files of later steps, which an earlier run left in the folder, are none of this run's past.

    Returns:
        Its path, ``None`` if there is none, and what could not be read, ``""`` if nothing.
    """
    newest = str(getattr(trainer.checkpoint_callback, "last_model_path", ""))
    found: list[tuple[int, str]] = []
    for path in sorted(Path(newest).parent.glob("*.ckpt")) if newest else []:
        if path.name.startswith(".") or not is_complete(path):  # being written, or torn
            continue
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            step, num_in_a_row = checkpoint["global_step"], _num_in_a_row(checkpoint)
        except Exception as error:  # of whatever kind: the other processes have to hear of it
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            return None, f"{path} cannot be read ({reason})"
        if not num_in_a_row and step <= trainer.global_step:
            found.append((step, str(path)))
    return (max(found)[1] if found else None), ""


def _num_in_a_row(checkpoint: dict[str, Any]) -> int:
    """Steps without a number right before it; checkpoints from before there was a guard tell of none."""
    return int(checkpoint["insight"].get("guard", {}).get("num_in_a_row", 0))


_AGAINST_NON_FINITE = (
    "lower the learning rate, set --trainer.gradient_clip_val 1 or --trainer.precision 32-true, "
    "or leave such steps out with --model.guard.non_finite skip"
)


class Verdict(NamedTuple):
    """On one optimizer step.

    Attributes:
        is_taken: Whether the optimizer may take it.
        reason: What is odd about it, ``""`` if nothing is.
    """

    is_taken: bool
    reason: str = ""


class StepGuard:
    """Judges the optimizer steps of a run as a :class:`Guard` says.

    Args:
        config: What to do when.

    Attributes:
        num_skipped: Steps that were left out.
        num_spikes: Losses that were far above the recent ones.
        num_rolled_back: How often weights and optimizer state were put back.
        num_in_a_row: Steps without a number since the last one with one.
        spike_score: Of the last loss that was judged.
    """

    def __init__(self, config: Guard) -> None:
        self.config = config
        self.num_skipped = 0
        self.num_spikes = 0
        self.num_rolled_back = 0
        self.num_in_a_row = 0
        self.spike_score: float | None = None
        self._went_back = False  # and no step since had numbers
        self._recent: list[float] = []
        self._batches: list[LanguageModelBatch] = []

    def remember(self, batch: LanguageModelBatch) -> None:
        """Keep a micro-batch until the step it belongs to has been judged."""
        if self.config.judges_every_step:
            self._batches.append(batch)

    def forget(self) -> None:
        """Drop the micro-batches of a step that will not come."""
        self._batches.clear()

    def is_worth_logging(self, loss: torch.Tensor) -> bool:
        """Whether a loss says something: not that of a step that will be left out for being no number."""
        return self.config.non_finite == "stop" or bool(torch.isfinite(loss))

    def admits(self, loss: torch.Tensor, norm: torch.Tensor | None, module: Any, logs: bool) -> bool:
        """Whether the optimizer may take the step; the same on every process.

        Args:
            loss: Of the global batch.
            norm: Of the whole gradient, where it was computed.
            module: In training.
            logs: Whether what is logged at this step reaches the loggers.

        Raises:
            InsightError: The run has to end here.
        """
        batches, self._batches = self._batches, []
        if loss.device.type != "cpu" and not (logs or self.config.judges_every_step):
            return True
        trainer = module.trainer
        # A gradient that overflows in float16 is the scaler's business: it leaves the step out itself.
        has_scaler = getattr(trainer.precision_plugin, "scaler", None) is not None
        magnitude = None if norm is None or has_scaler else float(norm)
        verdict = self.judge(float(loss), magnitude, trainer.global_step)
        if verdict.reason:
            where = record_suspects(module, batches, float(loss), verdict.reason, verdict.is_taken)
            how = "is taken all the same" if verdict.is_taken else "is left out"
            say(f"guard: {verdict.reason} at step {trainer.global_step:,}, which {how}; {where}")
        if logs and self.config.judges_every_step:
            module.log("guard/num_skipped", float(self.num_skipped))
            if self.spike_score is not None:
                module.log("guard/spike_score", self.spike_score)
        return verdict.is_taken

    def judge(self, loss: float, norm: float | None, step: int) -> Verdict:
        """The verdict on a step.

        Args:
            loss: Of the global batch.
            norm: Of the whole gradient, where it is known.
            step: Optimizer steps before it.

        Raises:
            InsightError: The run has to end here.
        """
        reason = _not_finite(loss, norm)
        if reason:
            return self._without_number(reason, step)
        self.num_in_a_row, self._went_back = 0, False
        spikes = self.config.spikes
        if spikes is None:
            return Verdict(is_taken=True)
        score = self.spike_score = spikes.score(loss, self._recent)
        self._recent = [*self._recent, loss][-spikes.window :]
        if score is None or score < spikes.threshold:
            return Verdict(is_taken=True)
        self.num_spikes += 1
        is_taken = spikes.action == "log"
        self.num_skipped += not is_taken
        return Verdict(is_taken, f"the loss is {loss:.4g}, {score:.1f} robust deviations above recent ones")

    def _without_number(self, reason: str, step: int) -> Verdict:
        if self.config.non_finite == "stop":
            raise InsightError(f"{reason} at step {step}", _AGAINST_NON_FINITE)
        self.num_skipped += 1
        self.num_in_a_row += 1
        if self.num_in_a_row >= self.config.num_in_a_row and (
            self.config.non_finite == "skip" or self._went_back
        ):
            raise InsightError(
                f"{reason} at step {step}, the {self.num_in_a_row}. such step in a row"
                + (", although weights and optimizer had been put back" if self._went_back else ""),
                "the weights rather than the data seem to be at fault: lower the learning rate and resume "
                "from an earlier checkpoint",
            )
        return Verdict(is_taken=False, reason=reason)

    def roll_back_if_due(self, trainer: Any) -> None:
        """Put weights and optimizer state back after too many steps in a row without a number.

        Called where a step begins: the last one is complete, and every process is at the same place.

        Raises:
            InsightError: There is no checkpoint from before.
        """
        if self.config.non_finite != "roll_back" or self.num_in_a_row < self.config.num_in_a_row:
            return
        path = put_back_last_good(trainer)
        self.num_rolled_back += 1
        say(
            f"guard: {self.num_in_a_row} steps in a row without a number; weights and optimizer are those of "
            f"{path} again, data and step go on"
        )
        self.num_in_a_row, self._went_back = 0, True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to judge as the uninterrupted one would."""
        return {
            "num_skipped": self.num_skipped,
            "num_spikes": self.num_spikes,
            "num_rolled_back": self.num_rolled_back,
            "num_in_a_row": self.num_in_a_row,
            "went_back": self._went_back,
            "recent_losses": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.num_skipped = state["num_skipped"]
        self.num_spikes = state["num_spikes"]
        self.num_rolled_back = state["num_rolled_back"]
        self.num_in_a_row = state["num_in_a_row"]
        self._went_back = state["went_back"]
        self._recent = list(state["recent_losses"])


def _not_finite(loss: float, norm: float | None) -> str:
    for name, value in (("loss", loss), ("norm of the gradient", norm)):
        if value is not None and not math.isfinite(value):
            return f"the {name} is {value}"
    return ""
