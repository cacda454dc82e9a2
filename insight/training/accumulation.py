"""What the micro-batches of one optimizer step add up to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from insight.training.losses import LinearCrossEntropy


class AccumulationWindow:
    """Sums over the micro-batches between two optimizer steps, on one process.

    Losses are divided by one number for the whole window, so that its gradients add up; which number does
    not matter, since :meth:`gradient_factor` takes it out again. The positions of the first micro-batch
    keep the scale right in 16 bits, and without accumulation and ignored targets no factor is left at all.

    Args:
        divisor: What each micro-batch's summed loss is divided by.
        device: Where the sums are kept.
    """

    def __init__(self, divisor: int, device: torch.device) -> None:
        self.divisor = divisor
        self.negative_log_likelihood = torch.zeros((), device=device)
        self.num_valid = torch.zeros((), dtype=torch.int64, device=device)
        self.expert_counts: torch.Tensor | None = None

    def add(self, summed: LinearCrossEntropy) -> torch.Tensor:
        """Count a micro-batch; returns what is differentiated."""
        self.negative_log_likelihood += summed.negative_log_likelihood
        self.num_valid += summed.num_valid
        return summed.loss / self.divisor

    def count_experts(self, counts: torch.Tensor) -> None:
        """Count how often each expert was chosen in a micro-batch: int64 ``(experts of all routers,)``."""
        self.expert_counts = counts if self.expert_counts is None else self.expert_counts + counts

    def expert_totals(self, strategy: Any, world_size: int) -> torch.Tensor | None:
        """These counts over all processes; ``None`` if no expert was counted."""
        if self.expert_counts is None or world_size == 1:
            return self.expert_counts
        totals: torch.Tensor = strategy.reduce(self.expert_counts, reduce_op="sum")
        return totals

    def totals(self, strategy: Any, world_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed negative log-likelihood and number of valid tokens over all processes."""
        totals = torch.stack([self.negative_log_likelihood, self.num_valid.to(torch.float32)])
        if world_size > 1:
            totals = strategy.reduce(totals, reduce_op="sum")
        return totals[0], totals[1]

    def gradient_factor(self, num_valid: torch.Tensor, accumulation: int, world_size: int) -> torch.Tensor:
        """What makes the gradient that of the mean over ``num_valid`` tokens.

        Lightning has divided the losses by ``accumulation``, and DDP has averaged over the processes. Where
        no token is valid the gradient is zero, and stays so.
        """
        return self.divisor * accumulation * world_size / num_valid.clamp_min(1)

    def state_dict(self, network: nn.Module, trainer: Any) -> dict[str, Any]:
        """A window that a checkpoint cuts, with its gradients so far.

        Several processes save what they have in common: the sum of their counts and the mean of their
        gradients, which is what DDP would have made of them.
        """
        nll, num_valid = self.totals(trainer.strategy, trainer.world_size)
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        if trainer.world_size > 1:
            gradients = {
                name: trainer.strategy.reduce(gradient, reduce_op="mean")
                for name, gradient in gradients.items()
            }
        return {
            "divisor": self.divisor,
            "accumulation": trainer.accumulate_grad_batches,
            "negative_log_likelihood": nll,
            "num_valid": num_valid,
            "gradients": gradients,
            "expert_counts": self.expert_totals(trainer.strategy, trainer.world_size),
        }

    @classmethod
    def restore(cls, state: dict[str, Any], network: nn.Module, trainer: Any) -> AccumulationWindow:
        """Put the gradients back and return the window, to be continued.

        The counts go to the first process alone: they are summed in the end.
        """
        parameters = dict(network.named_parameters())
        device = next(iter(parameters.values())).device
        window = cls(state["divisor"], device)
        if trainer.is_global_zero:
            window.negative_log_likelihood += state["negative_log_likelihood"].to(device)
            window.num_valid += state["num_valid"].to(device).to(torch.int64)
        counts = state.get("expert_counts")
        if counts is not None:
            counts = counts.to(device)
            window.expert_counts = counts if trainer.is_global_zero else torch.zeros_like(counts)
        factor = state["accumulation"] / trainer.accumulate_grad_batches
        for name, gradient in state["gradients"].items():
            parameters[name].grad = gradient.to(device) * factor
        return window
