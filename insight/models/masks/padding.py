"""Attention in both directions over sequences with padding, and to another such sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Mask
from insight.models.masks.bidirectional import BidirectionalMask
from insight.models.masks.documents import document_mask


@dataclass(frozen=True)
class PaddingMask(Mask):
    """Every query sees every token of its row, and none of the padding.

    Keys may be those of another sequence: what a query sees does not depend on where it stands. Written out
    it is a row of keys, never a square.

    Args:
        tokens: bool ``(batch, keys)``, False = padding; every row has a token (:func:`padding_mask` sees
            to that).
    """

    tokens: torch.Tensor

    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        return self.tokens[row, key] & (query >= 0)

    @property
    def num_rows(self) -> int:
        return self.tokens.shape[0]

    def within(self, window: int | None) -> Mask:
        # Here padding sees padding: beside it there may be nothing else within the window.
        return self if window is None else document_mask((~self.tokens).long(), BidirectionalMask(window))

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        return self.tokens[:, None, None]


def padding_mask(tokens: torch.Tensor | None) -> Mask:
    """Both directions over rows with padding on either side.

    A row of nothing but padding sees all of it: what comes out is of no use, but it is finite, and on no
    kernel a query without a key.

    Args:
        tokens: bool ``(batch, keys)``, False = padding; ``None`` for none.
    """
    if tokens is None:
        return BidirectionalMask()
    return PaddingMask(tokens | ~tokens.any(dim=1, keepdim=True))
