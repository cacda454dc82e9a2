"""Masks: which keys each query may attend to, and the cheapest kernel calls that compute only those."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from insight.runtime.errors import ConfigError

Attend = Callable[..., Tensor]
"""``(query, key, value, *, is_causal=False, attn_mask=None) -> output``: one call of a kernel."""

# Smaller blocks compute less outside the band but call the kernel more often.
_SMALLEST_BLOCK = 64
_BLOCKS_A_WINDOW = 2


class Mask(ABC):
    """Which keys each query may attend to. Usually the last query stands at the last key."""

    @abstractmethod
    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        """Return whether a query sees a key, bool, for indices that broadcast together.

        Args:
            row: Index of the row, below :attr:`num_rows`.
            query: Index of the query.
            key: Index of the key.
            offset: Number of keys minus number of queries, so that query i stands at key ``i + offset``.
        """

    def within(self, window: int | None, chunk_size: int | None = None) -> Mask:
        """Return the mask with a sliding window and, if it is causal, inside chunks; ``None`` = unchanged."""
        if chunk_size is not None:
            problem = f"a {type(self).__name__} has no chunks, which belong to causal attention"
            raise ConfigError(problem, "use chunk_size=null", option="chunk_size", value=chunk_size)
        return self if window is None else self._windowed(window)

    def _windowed(self, window: int) -> Mask:
        """Return this mask with a window, where :meth:`within` is not overridden."""
        raise NotImplementedError

    @property
    def num_rows(self) -> int:
        """Number of rows of the batch with different masks; 1 if all are equal."""
        return 1

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """Write the mask out: bool ``(batch or 1, 1, num_queries, num_keys)``, True = visible."""
        rows = torch.arange(self.num_rows, device=device)[:, None, None]
        queries = torch.arange(num_queries, device=device)[:, None]
        keys = torch.arange(num_keys, device=device)
        seen = self.visible(rows, queries, keys, num_keys - num_queries)
        return seen.expand(self.num_rows, num_queries, num_keys).unsqueeze(1)

    def attend(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Run a kernel's call under this mask, without writing the mask out where the kernel allows it.

        Queries are ``(batch, num_heads, num_queries, head_dim)``, keys and values
        ``(batch, num_key_value_heads, num_keys, head_dim)``.
        """
        return attend(query, key, value, attn_mask=self.allowed(query.shape[2], key.shape[2], query.device))

    def distances(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """Position of each query minus that of each key, int64 ``(batch or 1, num_queries, num_keys)``."""
        queries = torch.arange(num_keys - num_queries, num_keys, device=device).unsqueeze(1)
        return (queries - torch.arange(num_keys, device=device)).unsqueeze(0)

    def key_places(self, num_keys: int, device: torch.device) -> Tensor:
        """Position of each key in its own sequence, int64 ``(batch or 1, num_keys)``."""
        return torch.arange(num_keys, device=device).unsqueeze(0)


@dataclass(frozen=True)
class CausalMask(Mask):
    """A query sees its own token and everything before it.

    Args:
        window: Number of keys that a query sees, its own included (``distance < window``); ``None`` = all.
        chunk_size: Tokens of a chunk; a query sees only keys of its own chunk. ``None`` = one chunk.
    """

    window: int | None = None
    chunk_size: int | None = None

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        return self.sees(query + offset, key)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Return whether a query at one position sees a key at another."""
        distance = query - key
        seen = distance >= 0
        if self.window is not None:
            seen = seen & (distance < self.window)
        if self.chunk_size is not None:
            seen = seen & (query // self.chunk_size == key // self.chunk_size)
        return seen

    def within(self, window: int | None, chunk_size: int | None = None) -> CausalMask:
        if window is None and chunk_size is None:
            return self
        return CausalMask(_narrower(self.window, window), _narrower(self.chunk_size, chunk_size))

    def attend(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        num_queries, num_keys = query.shape[2], key.shape[2]
        window = num_keys if self.window is None else min(self.window, num_keys)
        if num_queries == 1:
            first = num_keys - window
            if self.chunk_size is not None:
                first = max(first, (num_keys - 1) // self.chunk_size * self.chunk_size)
            return attend(query, key[:, :, first:], value[:, :, first:])
        if self.chunk_size is not None and self.chunk_size < num_keys:
            if num_queries != num_keys:
                return super().attend(attend, query, key, value)
            inside = CausalMask(self.window)
            chunks = zip(*(torch.split(x, self.chunk_size, dim=2) for x in (query, key, value)), strict=True)
            return torch.cat([inside.attend(attend, *chunk) for chunk in chunks], dim=2)
        if window < num_keys:
            return attend_in_blocks(attend, query, key, value, CausalMask(self.window), window - 1, 0)
        if num_queries == num_keys:
            return attend(query, key, value, is_causal=True)
        # Kernels align their causal triangle with the first key, which hides tokens behind a cached prefix,
        # so the triangle is written out.
        return super().attend(attend, query, key, value)


@dataclass(frozen=True)
class BidirectionalMask(Mask):
    """Every query sees every key.

    Args:
        window: Largest distance of a key on either side (``|distance| <= window``); ``None`` = all.
    """

    window: int | None = None

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        distance = (query + offset - key).abs()
        return distance >= 0 if self.window is None else distance <= self.window

    def _windowed(self, window: int) -> Mask:
        return BidirectionalMask(_narrower(self.window, window))

    def attend(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.window is None or self.window >= key.shape[2] - 1:
            return attend(query, key, value)
        return attend_in_blocks(attend, query, key, value, self, self.window, self.window)


@dataclass(frozen=True)
class DocumentMask(Mask):
    """A query sees only keys of its own document that another mask shows.

    Padding is a separate document: tokens do not see it, it sees itself, and no row is without a key.

    Args:
        document_ids: int64 ``(batch, sequence)``.
        lengths: For each row the lengths of its documents in order; ``None`` if they are unknown or a
            document is not in one piece.
        inside: Which keys of its document a query sees.
    """

    document_ids: Tensor
    lengths: tuple[tuple[int, ...], ...] | None = None
    inside: Mask = CausalMask()

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        same = self.document_ids[row, query + offset] == self.document_ids[row, key]
        return same & self.inside.visible(row, query, key, offset)

    @property
    def num_rows(self) -> int:
        return self.document_ids.shape[0]

    def within(self, window: int | None, chunk_size: int | None = None) -> Mask:
        if chunk_size is None or not isinstance(self.inside, CausalMask):
            inside = self.inside.within(window, chunk_size)
            return self if inside is self.inside else replace(self, inside=inside)
        return self._cut(chunk_size).within(window)

    def attend(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.lengths is None:
            return super().attend(attend, query, key, value)
        # One call for each document costs a tenth of a dense mask and equals separate runs bit for bit.
        # `split`, not slices: its backward is one concatenation, while each slice's is a zero-filled copy.
        groups: list[tuple[int, tuple[int, ...]]] = []
        for row in self.lengths:
            if groups and groups[-1][1] == row:
                groups[-1] = (groups[-1][0] + 1, row)
            else:
                groups.append((1, row))
        sizes = [size for size, _ in groups]
        parts = zip(*(torch.split(x, sizes) for x in (query, key, value)), strict=True)
        rows = []
        for (_, lengths), tensors in zip(groups, parts, strict=True):
            documents = zip(*(torch.split(x, list(lengths), dim=2) for x in tensors), strict=True)
            rows.append(torch.cat([self.inside.attend(attend, q, k, v) for q, k, v in documents], dim=2))
        return torch.cat(rows)

    def _cut(self, size: int) -> DocumentMask:
        """Make the chunks of each document documents; the first chunk begins where the document does."""
        ids = self.document_ids
        ordered, order = ids.sort(dim=1, stable=True)
        index = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        begins = torch.ones_like(ids, dtype=torch.bool)
        begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        places = index - index.where(begins, 0).cummax(dim=1).values
        chunks = torch.empty_like(ids).scatter(1, order, places // size)
        lengths = None
        if self.lengths is not None:
            lengths = tuple(
                tuple(min(size, length - start) for length in row for start in range(0, length, size))
                for row in self.lengths
            )
        return DocumentMask(ids * ids.shape[1] + chunks, lengths, self.inside)


@dataclass(frozen=True)
class PaddingMask(Mask):
    """Every query sees every token of its row, and no padding.

    Keys may be those of another sequence, since the mask does not depend on the query's position. Written
    out, the mask is a row of keys, never a square.

    Args:
        tokens: bool ``(batch, keys)``, False = padding; every row has a token (:func:`padding_mask` ensures
            it).
    """

    tokens: Tensor

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        return self.tokens[row, key] & (query >= 0)

    @property
    def num_rows(self) -> int:
        return self.tokens.shape[0]

    def _windowed(self, window: int) -> Mask:
        # Here padding sees padding, since there may be no other keys within its window.
        return document_mask((~self.tokens).long(), BidirectionalMask(window))

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        return self.tokens[:, None, None]

    def key_places(self, num_keys: int, device: torch.device) -> Tensor:
        return (self.tokens.cumsum(dim=1) - 1).clamp_min(0)


@dataclass(frozen=True)
class PrefixMask(Mask):
    """Every query sees the whole prefix of its row, and everything before itself.

    Raffel et al. 2019, arXiv 1910.10683, section 3.2.1.

    Args:
        lengths: Tokens of each row's prefix, int64 ``(batch,)``.
        window: Bound of the distance of keys on either side; ``None`` = all.
    """

    lengths: Tensor
    window: int | None = None

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        distance = query + offset - key
        seen = (distance >= 0) | (key < self.lengths.to(row.device)[row])
        return seen if self.window is None else seen & (distance.abs() < self.window)

    @property
    def num_rows(self) -> int:
        return self.lengths.shape[0]

    def _windowed(self, window: int) -> Mask:
        return PrefixMask(self.lengths, _narrower(self.window, window))


@dataclass(frozen=True)
class PositionMask(Mask):
    """A causal mask by position, whatever the order of the keys: the mask over the content of a cache.

    Args:
        query_positions: int64 ``(batch or 1, num_queries)``.
        key_positions: int64 ``(batch or 1, num_keys)``; below 0 where there is no key.
        inside: The keys that a query sees by position.
        all_visible: Whether it is known that nothing is hidden.
    """

    query_positions: Tensor
    key_positions: Tensor
    inside: CausalMask = CausalMask()
    all_visible: bool = False

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        queries, keys = self.query_positions, self.key_positions
        return self._seen(queries[row % queries.shape[0], query], keys[row % keys.shape[0], key])

    @property
    def num_rows(self) -> int:
        return max(self.query_positions.shape[0], self.key_positions.shape[0])

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        # Without indices, for speed: every decoded token of a batch of different lengths passes here.
        return self._seen(self.query_positions.unsqueeze(2), self.key_positions.unsqueeze(1)).unsqueeze(1)

    def within(self, window: int | None, chunk_size: int | None = None) -> Mask:
        return replace(self, inside=self.inside.within(window, chunk_size))

    def attend(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.all_visible:
            return attend(query, key, value)
        return super().attend(attend, query, key, value)

    def distances(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        return self.query_positions.unsqueeze(2) - self.key_positions.unsqueeze(1)

    def _seen(self, query: Tensor, key: Tensor) -> Tensor:
        return self.inside.sees(query, key) & (key >= 0)


def document_mask(document_ids: Tensor | None, inside: Mask) -> Mask:
    """Return ``inside``, restricted to documents if their ids are given, int64 ``(batch, sequence)``.

    The keys of its document that a query sees must be equal from any start (no prefix).
    """
    if document_ids is None:
        return inside
    if torch.compiler.is_compiling():  # lengths are data, so a compiled graph takes the dense form
        return DocumentMask(document_ids, None, inside)
    lengths = []
    for row in document_ids:
        ids, counts = torch.unique_consecutive(row, return_counts=True)
        if len(set(ids.tolist())) != len(ids):
            return DocumentMask(document_ids, None, inside)
        lengths.append(tuple(counts.tolist()))
    return DocumentMask(document_ids, tuple(lengths), inside)


def causal_mask(document_ids: Tensor | None) -> Mask:
    """Return the mask of a decoder: causal, and inside documents if ``(batch, sequence)`` ids are given."""
    return document_mask(document_ids, CausalMask())


def padding_mask(tokens: Tensor | None) -> Mask:
    """Return the mask for attention in both directions over ``(batch, keys)``, False = padding.

    A row of padding only sees all of it: its output is meaningless but finite, and every query has a key.
    """
    if tokens is None:
        return BidirectionalMask()
    return PaddingMask(tokens | ~tokens.any(dim=1, keepdim=True))


def attend_in_blocks(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, mask: Mask, before: int, after: int
) -> Tensor:
    """Compute a sliding window in blocks of queries, each of which meets only the keys near it.

    The cost is that of a band instead of the whole square. Tensors are as in :meth:`Mask.attend`, with at
    least as many keys as queries.

    Args:
        attend: A kernel's call.
        mask: A mask that is equal for all rows and anywhere in the sequence.
        before: Most keys that it shows before the query's own.
        after: Most keys that it shows after the query's own.
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    offset = num_keys - num_queries
    size = max(_SMALLEST_BLOCK, (before + 1 + after) // _BLOCKS_A_WINDOW)
    blocks = [(start, min(start + size, num_queries)) for start in range(0, num_queries, size)]
    near = [(max(0, a + offset - before), min(num_keys, b + offset + after)) for a, b in blocks]
    bands: dict[tuple[int, int, int], Tensor] = {}
    outputs = []
    queries = torch.split(query, [stop - start for start, stop in blocks], dim=2)
    for (start, stop), (first, last), *tensors in zip(
        blocks, near, queries, _slices(key, near), _slices(value, near), strict=True
    ):
        shape = (stop - start, last - first, start + offset - first)
        if shape[0] == shape[1] <= before + 1 and not after:
            outputs.append(attend(*tensors, is_causal=True))
            continue
        if shape not in bands:
            bands[shape] = _band(mask, shape, query.device)
        outputs.append(attend(*tensors, attn_mask=bands[shape]))
    return torch.cat(outputs, dim=2)


def _narrower(first: int | None, second: int | None) -> int | None:
    """Return the smaller of two bounds, where ``None`` is unlimited."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _band(mask: Mask, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return the mask of a block, ``(1, 1, queries, keys)``; the first query stands at key ``shape[2]``."""
    num_queries, num_keys, offset = shape
    row, queries = torch.zeros((), dtype=torch.int64, device=device), torch.arange(num_queries, device=device)
    return mask.visible(row, queries[:, None], torch.arange(num_keys, device=device), offset)[None, None]


def _slices(tensor: Tensor, ranges: list[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Return ranges of the tokens, which may overlap."""
    if torch.compiler.is_compiling():
        return tuple(tensor[:, :, first:last] for first, last in ranges)
    slices: tuple[Tensor, ...] = _Slices.apply(tensor, ranges)  # type: ignore[no-untyped-call]
    return slices


class _Slices(torch.autograd.Function):
    """Views whose gradients are summed in one tensor; each slice's own would be zero-filled and full-size."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranges: list[tuple[int, int]]) -> tuple[Tensor, ...]:
        ctx.shape, ctx.ranges = tensor.shape, ranges
        return tuple(tensor[:, :, first:last] for first, last in ranges)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].new_zeros(ctx.shape)
        for (first, last), gradient in zip(ctx.ranges, gradients, strict=True):
            whole[:, :, first:last] += gradient
        return whole, None
