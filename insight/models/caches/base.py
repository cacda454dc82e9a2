"""The interface of a layer's cache, the cache of a whole decoder, and the input of cross-attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from insight.models.caches.trees import BeamTree
from insight.models.masks import BidirectionalMask, Mask, PaddingMask
from insight.runtime.errors import ConfigError

ProjectStates = Callable[[Tensor], tuple[Tensor, Tensor]]
"""States ``(batch, source, size)`` to keys and values ``(batch, num_key_value_heads, source, head_dim)``."""


@dataclass(frozen=True)
class CacheShape:
    """The sizes, data type and device that the caches of all layers share.

    Args:
        batch_size: Number of rows.
        max_length: The highest number of tokens of a row.
        dtype: Data type of the stored keys and values.
        device: Device of the buffers.
        max_rollback: Newest tokens that :meth:`LayerCache.truncate` can remove where old ones are dropped.
        tree: The tree of a beam search, for layers that can share the tokens of beams.
    """

    batch_size: int
    max_length: int
    dtype: torch.dtype
    device: torch.device
    max_rollback: int = 0
    tree: BeamTree | None = None


@dataclass(frozen=True)
class EncoderStates:
    """The states of an encoder, which a decoder's cross-attention reads.

    Args:
        states: ``(batch, source, size)``.
        mask: Which of the states each query may attend to.
    """

    states: Tensor
    mask: Mask = BidirectionalMask()

    def keys_and_values(self, project: ProjectStates) -> tuple[Tensor, Tensor]:
        """Compute keys and values with ``project``."""
        return project(self.states)


class CrossCache:
    """Keys and values of an encoder's states for one layer, computed once and read in every step.

    They are ``(batch, num_key_value_heads, source, head_dim)`` and do not grow with the decoded text. The
    beams of a sentence share its row.
    """

    def __init__(self, encoder_states: EncoderStates, project: ProjectStates, dtype: torch.dtype) -> None:
        keys, values = encoder_states.keys_and_values(project)
        # In one piece, since every step reads them.
        self.keys, self.values = keys.to(dtype).contiguous(), values.to(dtype).contiguous()
        self.mask = encoder_states.mask

    def keys_and_values(self, project: ProjectStates) -> tuple[Tensor, Tensor]:
        """Return the stored keys and values; ``project`` is not called."""
        return self.keys, self.values

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of the former row ``rows[i]``; rows may repeat and be dropped."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        if isinstance(self.mask, PaddingMask):
            self.mask = PaddingMask(self.mask.tokens[rows])


@dataclass(frozen=True)
class CacheStep:
    """The places of new tokens in a batch whose rows have different lengths.

    Args:
        starts: Number of tokens of each row so far, int64 ``(batch,)``.
        stops: Number of tokens of each row with the new ones.
        num_tokens: Number of new tokens, padding included; padding stands to the right of a row's tokens.
    """

    starts: Tensor
    stops: Tensor
    num_tokens: int

    @cached_property
    def positions(self) -> Tensor:
        """Position of every new token, int64 ``(batch, num_tokens)``; padding continues the count."""
        return self.starts.unsqueeze(1) + torch.arange(self.num_tokens, device=self.starts.device)

    @cached_property
    def stored_positions(self) -> Tensor:
        """Positions as in :attr:`positions`, with -1 for padding."""
        return self.positions.masked_fill(self.positions >= self.stops.unsqueeze(1), -1)

    @cached_property
    def longest(self) -> int:
        """Number of tokens of the longest row with the new ones."""
        return int(self.stops.max())


class LayerCache(ABC):
    """The keys and values of one layer for the tokens so far, or a state made from them.

    Attributes:
        length: Number of tokens stored, in the longest row if rows differ.
        step: Set by :class:`DecoderCache` for the next tokens if rows differ, otherwise ``None``.
    """

    length: int
    step: CacheStep | None = None

    def append(self, key: Tensor, value: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Mask]:
        """Store new tokens; return all keys and values for their queries, and the mask over them.

        Args:
            key: ``(batch, num_key_value_heads, new tokens, head_dim)``.
            value: Like ``key``.
            mask: Mask of the new tokens in a sequence that ends with them.
        """
        raise NotImplementedError  # a cache of states keeps no keys

    def truncate(self, length: int | Tensor) -> None:
        """Remove all but the first ``length`` tokens (of each row, if a tensor)."""
        self.length = min(self.length, int(torch.as_tensor(length).max()))

    @abstractmethod
    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of the former row ``rows[i]``; rows may repeat and be dropped."""

    def can_truncate(self, length: int | Tensor) -> bool:
        """Whether all tokens that would be needed again are still stored."""
        return True


class DecoderCache:
    """The caches of all layers, which advance together.

    Args:
        layers: One cache for each layer.
        batch_size: Number of rows.
        max_length: The highest number of tokens that the cache can hold.
        cross_caches: Keys and values of the encoder's states, for each layer; empty without an encoder.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        batch_size: int,
        max_length: int,
        cross_caches: Sequence[CrossCache] = (),
    ) -> None:
        self.layers = list(layers)
        self.cross_caches = list(cross_caches)
        self.max_length = max_length
        self.batch_size = batch_size
        self.lengths: Tensor | None = None
        """Number of tokens of each row, int64 ``(batch,)``; ``None`` while all rows have :attr:`length`."""

    @property
    def length(self) -> int:
        """Number of tokens stored, in the longest row if rows differ."""
        return self.layers[0].length

    def place(self, input_ids: Tensor, lengths: Tensor | None) -> CacheStep | None:
        """Return the places of new tokens, before anything is stored; ``None`` if all rows are alike.

        ``lengths`` says how many tokens of each row are not padding, int64 ``(batch,)``; ``None`` = all.
        Tokens that do not fit are refused.
        """
        batch_size, num_tokens = input_ids.shape
        if self.batch_size != batch_size:
            raise ConfigError(
                f"input_ids has {batch_size} rows, the cache {self.batch_size}",
                f"make the cache with batch_size={batch_size}, or reorder it",
            )
        step = None
        if lengths is not None or self.lengths is not None:
            starts = self.lengths
            if starts is None:
                starts = torch.full((batch_size,), self.length, device=input_ids.device)
            step = CacheStep(starts, starts + (num_tokens if lengths is None else lengths), num_tokens)
        num_new = num_tokens if step is None else step.longest - self.length
        if self.length + num_new > self.max_length:
            raise ConfigError(
                f"{self.length} cached tokens and {num_new} new ones exceed max_length={self.max_length} "
                "of the cache",
                "make a longer cache or drop the oldest tokens",
            )
        return step

    def begin(self, step: CacheStep | None) -> None:
        """Prepare for the tokens of ``step``, which every layer is about to store."""
        if step is not None:
            self.lengths = step.stops
        for layer in self.layers:
            layer.step = step

    def truncate(self, length: int | Tensor) -> None:
        """Remove all but the first ``length`` tokens in every layer.

        There is one ``length`` for all rows or one for each, int64 ``(batch,)``; a row with fewer tokens is
        unchanged. Refused is what would need tokens that a sliding window or a state has moved past.
        """
        lengths = torch.as_tensor(length)
        if lengths.dtype not in (torch.int64, torch.int32) or bool((lengths < 0).any()):
            problem, remedy = (
                "a cache is truncated to a whole number of tokens",
                "use 0 to forget all of them",
            )
            raise ConfigError(problem, remedy, option="length", value=lengths.tolist())
        if lengths.ndim and lengths.shape != (self.batch_size,):
            problem = f"has shape {tuple(lengths.shape)}, and the cache {self.batch_size} rows"
            raise ConfigError(
                problem, "give one number, or one a row", option="length", value=lengths.tolist()
            )
        if not all(layer.can_truncate(length) for layer in self.layers):
            raise ConfigError(
                f"truncating {self.length} cached tokens: a sliding window or a state has moved past "
                "what would be needed again",
                "make the cache with a larger max_rollback",
            )
        if isinstance(length, Tensor) and self.lengths is None:
            self.lengths = torch.full_like(length, self.length)
        if self.lengths is not None:
            self.lengths = length = torch.minimum(self.lengths, torch.as_tensor(length).to(self.lengths))
        for layer in self.layers:
            layer.truncate(length)

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of the former row ``rows[i]``, in every layer; rows may repeat or be left out."""
        if rows.ndim != 1 or rows.dtype not in (torch.int64, torch.int32) or not rows.numel():
            problem = f"is {rows.dtype} of shape {tuple(rows.shape)}"
            remedy = "give the number of a row for each new row"
            raise ConfigError(problem, remedy, option="rows", value=rows.tolist())
        if int(rows.min()) < 0 or int(rows.max()) >= self.batch_size:
            problem, remedy = f"the cache has rows 0 to {self.batch_size - 1}", "name rows that are there"
            raise ConfigError(problem, remedy, option="rows", value=rows.tolist())
        parts: list[LayerCache | CrossCache] = [*self.layers, *self.cross_caches]
        for part in parts:
            part.reorder(rows)
        self.batch_size = rows.shape[0]
        if self.lengths is not None:
            self.lengths = self.lengths[rows]
