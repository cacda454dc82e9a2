"""Packed documents and padding: attention inside runs of equal ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Attend, Mask
from insight.models.masks.causal import CausalMask


@dataclass(frozen=True)
class DocumentMask(Mask):
    """Only keys of the query's own document, and of these what another mask shows.

    Padding is a document of its own: tokens do not see it, it sees itself, and no row is without a key.

    Args:
        document_ids: int64 ``(batch, sequence)``.
        lengths: For each row the lengths of its documents in order, or ``None`` where they are not
            known or a document is not in one piece.
        inside: What a query sees of its document.
    """

    document_ids: torch.Tensor
    lengths: tuple[tuple[int, ...], ...] | None = None
    inside: Mask = CausalMask()

    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        same = self.document_ids[row, query + offset] == self.document_ids[row, key]
        return same & self.inside.visible(row, query, key, offset)

    @property
    def num_rows(self) -> int:
        return self.document_ids.shape[0]

    def within(self, window: int | None) -> Mask:
        if window is None:
            return self
        return DocumentMask(self.document_ids, self.lengths, self.inside.within(window))

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        if self.lengths is None:
            return super().attend(attend, query, key, value)
        # One call a document costs a tenth of a dense mask and equals separate runs bit for bit.
        # `split`, not slices: its backward is one concatenation, a slice's is a zero-filled copy each.
        groups: list[tuple[int, tuple[int, ...]]] = []
        for row in self.lengths:
            if groups and groups[-1][1] == row:
                groups[-1] = (groups[-1][0] + 1, row)
            else:
                groups.append((1, row))
        sizes = [size for size, _ in groups]
        rows = []
        for (_, lengths), *tensors in zip(
            groups, *(torch.split(x, sizes) for x in (query, key, value)), strict=True
        ):
            documents = zip(*(torch.split(x, lengths, dim=2) for x in tensors), strict=True)
            rows.append(torch.cat([self.inside.attend(attend, q, k, v) for q, k, v in documents], dim=2))
        return torch.cat(rows)


def document_mask(document_ids: torch.Tensor | None, inside: Mask) -> Mask:
    """``inside`` alone, or inside documents where their ids are given.

    Args:
        document_ids: int64 ``(batch, sequence)`` or ``None``.
        inside: What a query sees of its document; must look the same from any start (no prefix).
    """
    if document_ids is None:
        return inside
    if torch.compiler.is_compiling():  # lengths are data; a compiled graph takes the dense form
        return DocumentMask(document_ids, None, inside)
    lengths = []
    for row in document_ids:
        ids, counts = torch.unique_consecutive(row, return_counts=True)
        if len(set(ids.tolist())) != len(ids):
            return DocumentMask(document_ids, None, inside)
        lengths.append(tuple(counts.tolist()))
    return DocumentMask(document_ids, tuple(lengths), inside)


def causal_mask(document_ids: torch.Tensor | None) -> Mask:
    """The mask of a decoder: causal, inside documents where their ids are given.

    Args:
        document_ids: int64 ``(batch, sequence)`` or ``None``.
    """
    return document_mask(document_ids, CausalMask())
