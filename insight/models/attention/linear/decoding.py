"""The state of a linear mixer while decoding: read from a cache, moved on by new tokens, written back."""

from __future__ import annotations

import torch

from insight.models.attention.linear.chunks import mix_chunks
from insight.models.attention.linear.recurrence import Recurrence, mix_token
from insight.models.caches import CacheStep, RecurrentCache


def mix_cached(inputs: Recurrence, cache: RecurrentCache, step: CacheStep) -> torch.Tensor:
    """Outputs of new tokens ``(batch, num_heads, tokens, value channels)``; the cache moves on.

    Tokens that may be taken back go one by one, since the state after each has to be kept; so does a token
    that comes alone. Others go in chunks.

    Args:
        inputs: Of the new tokens.
        cache: Of this layer.
        step: Where they go.
    """
    ragged = cache.step is not None
    shift = torch.zeros_like(step.starts)
    if ragged:
        inputs = without_padding(inputs, step.stored_positions < 0)
        # Padding to the left: the newest tokens of all rows, which may be taken back, then stand together.
        shift = step.num_tokens - (step.stops - step.starts)
        inputs = inputs.map(lambda tensor: _roll(tensor, -shift))
    state = cache.read(step).to(inputs.value.dtype)
    num_single = 1 if inputs.num_tokens == 1 else min(cache.max_rollback, inputs.num_tokens)
    num_together = inputs.num_tokens - num_single
    outputs = []
    if num_together:
        output, state = mix_chunks(inputs.tokens(0, num_together), state)
        outputs.append(output)
        cache.write(state, step, num_single)
    for index in range(num_together, inputs.num_tokens):
        output, state = mix_token(inputs.tokens(index, index + 1), state)
        outputs.append(output)
        cache.write(state, step, inputs.num_tokens - index - 1)
    cache.finish(step)
    mixed = torch.cat(outputs, dim=2)
    return _roll(mixed, shift) if ragged else mixed


def without_padding(inputs: Recurrence, padding: torch.Tensor) -> Recurrence:
    """Tokens that are padding neither write nor decay, so the state passes them bit for bit.

    Args:
        inputs: Of all tokens.
        padding: Bool ``(batch, tokens)``.
    """
    silent = padding[:, None, :, None]
    strength = inputs.strength
    return Recurrence(
        inputs.query,
        inputs.key.masked_fill(silent, 0),
        inputs.value,
        inputs.log_decay.masked_fill(silent, 0),
        None if strength is None else strength.masked_fill(silent, 0),
    )


def _roll(tensor: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Token i + shift to place i, around the end, with a shift ``(batch,)`` a row."""
    num_tokens = tensor.shape[2]
    places = torch.arange(num_tokens, device=tensor.device) + shift.unsqueeze(1)
    return torch.take_along_dim(tensor, (places % num_tokens)[:, None, :, None], dim=2)
