"""Masks as descriptions: which keys a query sees, and the cheapest calls that compute just those."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

Attend = Callable[..., torch.Tensor]
"""``(query, key, value, *, causal=False, allowed=None) -> output``: one call of a kernel."""


class Mask(ABC):
    """Which keys each query sees. The last query is the newest token and stands at the last key."""

    @abstractmethod
    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        """The description written out: bool ``(batch or 1, 1, num_queries, num_keys)``, True = visible."""

    @abstractmethod
    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Run a kernel under this mask without writing the mask out where the kernel allows it.

        Args:
            attend: The kernel's call.
            query: ``(batch, num_heads, num_queries, head_dim)``.
            key: ``(batch, num_key_value_heads, num_keys, head_dim)``.
            value: Like ``key``.
        """


@dataclass(frozen=True)
class CausalMask(Mask):
    """A query sees its own token and everything before it."""

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        queries = torch.arange(num_keys - num_queries, num_keys, device=device).unsqueeze(1)
        return (torch.arange(num_keys, device=device) <= queries)[None, None]

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        num_queries, num_keys = query.shape[2], key.shape[2]
        if num_queries == num_keys:
            return attend(query, key, value, causal=True)
        if num_queries == 1:
            return attend(query, key, value)
        # Kernels align their causal triangle with the first key; behind a cached prefix that hides
        # tokens, so the triangle has to be written out.
        return attend(query, key, value, allowed=self.allowed(num_queries, num_keys, query.device))


@dataclass(frozen=True)
class DocumentMask(Mask):
    """Causal, and only inside a document: packed documents do not see each other.

    Args:
        document_ids: int64 ``(batch, sequence)``.
        lengths: For each row the lengths of its documents in order, or ``None`` where they are not
            known or a document is not in one piece.
    """

    document_ids: torch.Tensor
    lengths: tuple[tuple[int, ...], ...] | None = None

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        same = self.document_ids.unsqueeze(2) == self.document_ids.unsqueeze(1)
        return same.unsqueeze(1) & CausalMask().allowed(num_queries, num_keys, device)

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        if self.lengths is None:
            return attend(query, key, value, allowed=self.allowed(query.shape[2], key.shape[2], query.device))
        # One causal call a document costs a tenth of a dense mask and equals separate runs bit for bit.
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
            rows.append(torch.cat([attend(q, k, v, causal=True) for q, k, v in documents], dim=2))
        return torch.cat(rows)


def causal_mask(document_ids: torch.Tensor | None) -> Mask:
    """The mask of a decoder: causal, inside documents where their ids are given.

    Args:
        document_ids: int64 ``(batch, sequence)`` or ``None``.
    """
    if document_ids is None:
        return CausalMask()
    if torch.compiler.is_compiling():  # lengths are data; a compiled graph takes the dense form
        return DocumentMask(document_ids)
    lengths = []
    for row in document_ids:
        ids, counts = torch.unique_consecutive(row, return_counts=True)
        if len(set(ids.tolist())) != len(ids):
            return DocumentMask(document_ids)
        lengths.append(tuple(counts.tolist()))
    return DocumentMask(document_ids, tuple(lengths))
