"""Which tokens share a state, and the order in which they go through it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks import CausalMask, DocumentMask, Mask
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class DocumentOrder:
    """Tokens of each document in one piece, so that one state goes along the row and is emptied in between.

    Args:
        document_ids: int64 ``(batch, tokens)`` in that order; ``None`` = one document a row.
        places: Where each of these tokens stands in the text, int64 ``(batch, tokens)``; ``None`` = there.
    """

    document_ids: torch.Tensor | None = None
    places: torch.Tensor | None = None

    @classmethod
    def of_mask(cls, mask: Mask) -> DocumentOrder:
        """What a mask says.

        Raises:
            ConfigError: It shows or hides more than a state can.
        """
        inside = mask.inside if isinstance(mask, DocumentMask) else mask
        if not isinstance(inside, CausalMask) or inside.window is not None:
            raise ConfigError(
                f"{type(inside).__name__} over a linear mixer: its state holds all that came before a token "
                "and nothing else",
                "use causal masks and documents, or attention in place of the mixer",
            )
        if not isinstance(mask, DocumentMask):
            return cls()
        if mask.lengths is not None:
            return cls(mask.document_ids)
        # Some document is not in one piece, or nobody looked (in a compiled graph).
        ids, places = mask.document_ids.sort(dim=1, stable=True)
        return cls(ids, places)

    def sort(self, tensor: torch.Tensor) -> torch.Tensor:
        """``(batch, tokens, ...)`` from the order of the text to this one."""
        return tensor if self.places is None else _take(tensor, self.places)

    def restore(self, tensor: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`sort`."""
        return tensor if self.places is None else _take(tensor, self.places.argsort(dim=1))


def _take(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.take_along_dim(tensor, places.reshape(*places.shape, *[1] * (tensor.ndim - 2)), dim=1)
