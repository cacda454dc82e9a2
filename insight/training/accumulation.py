"""What the micro-batches of one optimizer step add up to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from insight.models import row_orders
from insight.runtime.sharded_tensors import part_like, whole
from insight.training.losses import LinearCrossEntropy
from insight.training.parallel import num_replicas, replica_rank, sum_over_replicas


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

    def expert_totals(self, trainer: Any) -> torch.Tensor | None:
        """These counts over all processes; ``None`` if no expert was counted."""
        return None if self.expert_counts is None else sum_over_replicas(self.expert_counts, trainer)

    def totals(self, trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed negative log-likelihood and number of valid tokens over all processes."""
        counts = torch.stack([self.negative_log_likelihood, self.num_valid.to(torch.float32)])
        nll, num_valid = sum_over_replicas(counts, trainer)
        return nll, num_valid

    def gradient_factor(self, num_valid: torch.Tensor, trainer: Any) -> torch.Tensor:
        """What makes the gradient that of the mean over ``num_valid`` tokens.

        Lightning has divided the losses by the number of micro-batches, and DDP and FSDP2 have averaged over
        the replicas. Where no token is valid the gradient is zero, and stays so.
        """
        factor: int = self.divisor * trainer.accumulate_grad_batches * num_replicas(trainer)
        return factor / num_valid.clamp_min(1)

    def state_dict(self, network: nn.Module, trainer: Any) -> dict[str, Any]:
        """A window that a checkpoint cuts, with its gradients so far.

        Several processes save what they have in common: the sum of their counts and the mean of their
        gradients, which is what DDP would have made of them and FSDP2 has; the gradients are those of the
        first process, which writes, alone.
        """
        nll, num_valid = self.totals(trainer)
        orders = row_orders(network)
        gradients = {}
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                mean = _mean_over_replicas(parameter.grad, trainer, orders.get(name))
                if trainer.is_global_zero:  # one after the other, so that no device holds them all
                    gradients[name] = mean.cpu()
        return {
            "divisor": self.divisor,
            "accumulation": trainer.accumulate_grad_batches,
            "replicas": num_replicas(trainer),
            "negative_log_likelihood": nll,
            "num_valid": num_valid,
            "gradients": gradients,
            "expert_counts": self.expert_totals(trainer),
        }

    @classmethod
    def restore(cls, state: dict[str, Any], network: nn.Module, trainer: Any) -> AccumulationWindow:
        """Put the gradients back and return the window, to be continued.

        The counts go to the first replica alone: they are summed in the end.
        """
        is_first = replica_rank(trainer) == 0
        parameters = dict(network.named_parameters())
        device = next(iter(parameters.values())).device
        window = cls(state["divisor"], device)
        if is_first:
            window.negative_log_likelihood += state["negative_log_likelihood"].to(device)
            window.num_valid += state["num_valid"].to(device).to(torch.int64)
        counts = state.get("expert_counts")
        if counts is not None:
            counts = counts.to(device)
            window.expert_counts = counts if is_first else torch.zeros_like(counts)
        # Averages over other numbers of micro-batches and replicas than those of before.
        replicas = num_replicas(trainer)
        factor = state["accumulation"] / trainer.accumulate_grad_batches
        factor *= state.get("replicas", replicas) / replicas
        orders = row_orders(network)
        for name, gradient in state["gradients"].items():
            part = part_like(gradient, parameters[name], orders.get(name))
            parameters[name].grad = part * factor
        return window


def _mean_over_replicas(gradient: torch.Tensor, trainer: Any, row_order: torch.Tensor | None) -> torch.Tensor:
    if isinstance(gradient, DTensor):  # each part is that of the mean already
        return whole(gradient, row_order)
    if trainer.world_size == 1:
        return gradient.clone()
    mean: torch.Tensor = trainer.strategy.reduce(gradient.clone(), reduce_op="mean")
    return mean
