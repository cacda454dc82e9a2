"""What keeps a router from sending every token to the same few experts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class RouterBalance(Component):
    """A way to spread tokens over experts in training."""

    @property
    @abstractmethod
    def loss_coefficient(self) -> float:
        """Factor of :func:`balance_loss` in what is differentiated; 0 for none."""

    @property
    def moves_bias(self) -> bool:
        """Whether the router has a bias that only its choice sees, moved by :meth:`bias_change`."""
        return False

    def bias_change(self, counts: torch.Tensor) -> torch.Tensor:
        """What is added to that bias after an optimizer step.

        Args:
            counts: int64 ``(num_experts,)``: how often each expert was chosen for the tokens of the step.
        """
        return torch.zeros_like(counts, dtype=torch.float32)


@dataclass(frozen=True)
class BalanceLoss(RouterBalance):
    """A loss that is least where all experts are chosen equally often (Fedus et al. 2021, arXiv 2101.03961).

    Args:
        coefficient: Its factor beside the mean loss of a token.
    """

    coefficient: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.coefficient < 100:
            raise ConfigError(
                f"coefficient={self.coefficient}: the factor of the balance loss must be above 0",
                "use 0.01, or balance=null for none",
            )

    @property
    def loss_coefficient(self) -> float:
        return self.coefficient


@dataclass(frozen=True)
class BalanceBias(RouterBalance):
    """A bias of each expert that follows its load and disturbs no gradient (DeepSeek-V3, arXiv 2412.19437).

    After each step it falls for experts with more than the mean load and rises for the others. It is added to
    the scores by which experts are chosen, not to those by which their outputs are weighted.

    Args:
        rate: How far it moves in a step.
    """

    rate: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.rate < 100:
            raise ConfigError(
                f"rate={self.rate}: the step of the balance bias must be above 0",
                "use 0.001, or balance=null for none",
            )

    @property
    def loss_coefficient(self) -> float:
        return 0.0

    @property
    def moves_bias(self) -> bool:
        return True

    def bias_change(self, counts: torch.Tensor) -> torch.Tensor:
        loads = counts.to(torch.float32)
        return self.rate * torch.sign(loads.mean() - loads)


def balance_loss(counts: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """num_experts x sum over experts of share x mean probability: 1 where the load is even, more where not.

    Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6, with shares of all choices of all tokens, so that
    it does not grow with the number of experts that a token is given. The gradient goes through the
    probabilities.

    Args:
        counts: int64 ``(num_experts,)``: how often each expert was chosen.
        probabilities: ``(tokens, num_experts)``, each row of sum 1.
    """
    shares = counts.to(probabilities.dtype) / counts.sum()
    return counts.shape[0] * (shares * probabilities.mean(dim=0)).sum()
