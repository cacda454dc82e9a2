"""Mixtures of experts in training: the balance loss, the bias that follows the load, and what is logged."""

from __future__ import annotations

import torch
from torch import nn

from insight.models import Router


class ExpertLoad:
    """Reads what the routers of a network did and lets them answer to it.

    Balance is judged within each micro-batch of each process, over all its tokens, padding included. Unlike
    the loss of the text it is no sum over tokens: accumulation and processes are not the same as one large
    batch. The bias follows the counts of the whole optimizer step.

    Args:
        network: Whose routers are read; without any, nothing happens.
    """

    def __init__(self, network: nn.Module) -> None:
        self.routers = [module for module in network.modules() if isinstance(module, Router)]
        self._balance: list[torch.Tensor] = []

    def collect(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What the training pass that has just run adds to the mean loss of a token, and its counts.

        Returns:
            A scalar, differentiable where a router asks for it, and int64 ``(experts of all routers,)``;
            ``None`` without routers.
        """
        routed = [(router, result) for router in self.routers if (result := router.take()) is not None]
        if not routed:
            return None
        self._balance = [result.balance.detach() for _, result in routed]
        penalty = torch.zeros_like(routed[0][1].balance)
        for router, result in routed:
            if router.balance is not None and router.balance.loss_coefficient:
                penalty = penalty + router.balance.loss_coefficient * result.balance
        return penalty, torch.cat([result.counts for _, result in routed])

    def finish_step(self, counts: torch.Tensor) -> dict[str, torch.Tensor]:
        """Move the biases, and say how even the load was.

        Args:
            counts: As from :meth:`collect`, summed over the optimizer step.

        Returns:
            ``router_balance``: mean over routers of the balance loss of the last micro-batch, 1 where even;
            ``expert_load_highest`` and ``expert_load_lowest``: the most and the least used expert of any
            router, in multiples of an even share.
        """
        loads = []
        parts = torch.split(counts, [router.num_experts for router in self.routers])
        for router, part in zip(self.routers, parts, strict=True):
            router.move_bias(part)
            loads.append(part / part.sum().clamp_min(1) * router.num_experts)
        joined = torch.cat(loads)
        return {
            "router_balance": torch.stack(self._balance).mean(),
            "expert_load_highest": joined.max(),
            "expert_load_lowest": joined.min(),
        }
