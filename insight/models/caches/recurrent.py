"""A cache for linear mixers: the state after the newest tokens, of the same size at any length."""

from __future__ import annotations

import torch
from torch import Tensor

from insight.models.caches.base import CacheShape, CacheStep, LayerCache


class RecurrentCache(LayerCache):
    """A state for each row, in float32 or better, and the newest inputs of a short convolution.

    Tokens cannot be removed from a state, so :meth:`truncate` returns to a stored one: each row has a ring of
    the states after its newest ``max_rollback`` + 1 tokens. The state after p tokens lies in slot p modulo
    the number of slots, and so does the input at position p.

    A layer gets the places of its tokens from :meth:`begin`, then calls :meth:`append_inputs`, :meth:`read`,
    :meth:`write` and :meth:`finish` in this order.

    Args:
        shape: Rows, tokens and data type of the stored inputs.
        state_shape: Shape of one row's state.
        num_channels: Channels of the convolution's inputs; 0 = no convolution.
        num_inputs: Earlier inputs that the convolution sees.
    """

    def __init__(
        self, shape: CacheShape, state_shape: tuple[int, ...], num_channels: int = 0, num_inputs: int = 0
    ) -> None:
        batch_size, dtype, device = shape.batch_size, shape.dtype, shape.device
        self.max_rollback = min(shape.max_rollback, shape.max_length)
        wide = torch.promote_types(dtype, torch.float32)
        self.states = torch.zeros(batch_size, self.max_rollback + 1, *state_shape, dtype=wide, device=device)
        # Zeros stand for the inputs before the first token; no row can go back so far that a slot which it
        # needs for that has been overwritten.
        num_slots = max(num_inputs + self.max_rollback, 1)
        self.inputs = torch.zeros(batch_size, num_slots, num_channels, dtype=dtype, device=device)
        self.num_inputs = num_inputs
        self.length = 0
        self._rows = torch.arange(batch_size, device=device)
        # Tokens that each row ever had, including removed ones.
        self._written = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def begin(self, num_tokens: int) -> CacheStep:
        """Return the places of ``num_tokens`` new tokens in every row."""
        if self.step is not None:
            return self.step
        starts = torch.full_like(self._rows, self.length)
        return CacheStep(starts, starts + num_tokens, num_tokens)

    def append_inputs(self, inputs: Tensor, step: CacheStep) -> Tensor:
        """Store the newest inputs, and put before ``inputs`` those that a convolution sees before them.

        ``(batch, new tokens, channels)`` becomes ``(batch, num_inputs + new tokens, channels)``.
        """
        num_slots = self.inputs.shape[1]
        first = (step.starts - self.num_inputs).unsqueeze(1)
        before = (first + torch.arange(self.num_inputs, device=first.device)) % num_slots
        old = torch.take_along_dim(self.inputs, before.unsqueeze(2), dim=1)
        joined = torch.cat([old.to(inputs.dtype), inputs], dim=1)
        # Each slot takes the newest of its positions, unless that was stored before.
        last = step.stops.unsqueeze(1) - 1
        columns = last - (last - torch.arange(num_slots, device=last.device)) % num_slots - first
        newest = torch.take_along_dim(joined, columns.clamp_min(0).unsqueeze(2), dim=1)
        self.inputs.copy_(torch.where(columns.unsqueeze(2) < 0, self.inputs, newest.to(self.inputs.dtype)))
        return joined

    def read(self, step: CacheStep) -> Tensor:
        """Return the state before the new tokens, ``(batch, *state_shape)``."""
        if self.max_rollback == 0:
            return self.states[:, 0]
        return self.states[self._rows, step.starts % (self.max_rollback + 1)]

    def write(self, state: Tensor, step: CacheStep, num_to_come: int = 0) -> None:
        """Store a state ``(batch, *state_shape)`` that lacks at most the last ``num_to_come`` new tokens.

        For a row with fewer new tokens than that, it is the state before them.
        """
        if self.max_rollback == 0:
            self.states[:, 0] = state
        else:
            lengths = torch.maximum(step.starts, step.stops - num_to_come)
            self.states[self._rows, lengths % (self.max_rollback + 1)] = state.to(self.states.dtype)

    def finish(self, step: CacheStep) -> None:
        """Record that the new tokens are stored."""
        self.length = self.length + step.num_tokens if self.step is None else step.longest
        self._written = torch.maximum(self._written, step.stops)

    def can_truncate(self, length: int | Tensor) -> bool:
        oldest = self._written - self.max_rollback
        return not bool((torch.as_tensor(length).to(oldest) < oldest).any())

    def reorder(self, rows: Tensor) -> None:
        self.states, self.inputs, self._written = self.states[rows], self.inputs[rows], self._written[rows]
        self._rows = torch.arange(rows.shape[0], device=self._rows.device)
