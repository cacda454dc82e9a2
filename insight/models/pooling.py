"""One vector for a whole sequence, for classifiers and embeddings."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from insight.runtime.component import Component


@dataclass(frozen=True)
class Pooling(Component):
    """How the hidden states of a sequence become one vector."""

    @abstractmethod
    def build(self) -> PooledBy:
        """The function that does it."""


class PooledBy:
    """The built form of a :class:`Pooling`: it learns nothing, so it is no module."""

    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        """``(batch, sequence, hidden_size)`` to ``(batch, hidden_size)``; padding takes no part.

        Args:
            hidden: Hidden states.
            tokens: bool ``(batch, sequence)``, False = padding, on either side; ``None`` for none.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MeanPooling(Pooling):
    """The mean over all tokens (Reimers and Gurevych 2019, arXiv 1908.10084); 0 where there is none."""

    def build(self) -> PooledBy:
        return _Mean()


@dataclass(frozen=True)
class FirstTokenPooling(Pooling):
    """The first token, which a tokenizer puts there for that (BERT, Devlin et al. 2018, arXiv 1810.04805)."""

    def build(self) -> PooledBy:
        return _First()


@dataclass(frozen=True)
class LastTokenPooling(Pooling):
    """The last token, usually the end of the text (Wang et al. 2023, arXiv 2401.00368)."""

    def build(self) -> PooledBy:
        return _Last()


class _Mean(PooledBy):
    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        if tokens is None:
            return hidden.mean(dim=1)
        # Masked, not multiplied by 0: what stands in padding may be anything.
        summed = hidden.masked_fill(~tokens.unsqueeze(-1), 0).sum(dim=1)
        return summed / tokens.sum(dim=1, keepdim=True).clamp_min(1).to(hidden.dtype)


class _First(PooledBy):
    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        if tokens is None:
            return hidden[:, 0]
        return _pick(hidden, tokens.long().argmax(dim=1))


class _Last(PooledBy):
    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        if tokens is None:
            return hidden[:, -1]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return _pick(hidden, places.where(tokens, 0).amax(dim=1))


def _pick(hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), places]
