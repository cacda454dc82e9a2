"""A bound of scores."""

from __future__ import annotations

import torch


def soft_cap(scores: torch.Tensor, bound: float | None) -> torch.Tensor:
    """c * tanh(scores / c): nearly the scores where they are small, never beyond the bound c.

    Gemma 2 (arXiv 2408.00118) bounds the scores of attention and of tokens so.

    Args:
        scores: Of any shape.
        bound: c; ``None`` for none.
    """
    return scores if bound is None else bound * torch.tanh(scores / bound)
