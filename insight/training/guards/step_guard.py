"""The verdict on every optimizer step before it is taken, and what is remembered for the next one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from insight.data.batches import LanguageModelBatch
from insight.runtime.errors import InsightError
from insight.runtime.messages import say
from insight.training.guards.guard import Guard
from insight.training.guards.rollback import put_back_last_good
from insight.training.guards.suspects import record_suspects

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
