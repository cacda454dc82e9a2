"""The state of a linear mixer: a matrix for each head that each token decays, writes to and reads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Recurrence:
    """The effect of each token on the state, a matrix S ``(key channels, value channels)`` per head::

        S_t = exp(log_decay_t) * S_(t-1) + key_t u_t^T        output_t = S_t^T query_t

    Without ``strength``, u_t is the value: linear attention (Katharopoulos et al. 2020, arXiv 2006.16236).
    With it, u_t = strength_t * (value_t - what the decayed state returns for key_t): the delta rule (Yang et
    al. 2024, arXiv 2412.06464), which corrects the value under a key instead of adding to it.

    Args:
        query: ``(batch, num_heads, tokens, key channels)``; all tensors are float32 or float64.
        key: Like ``query``.
        value: ``(batch, num_heads, tokens, value channels)``.
        log_decay: ``(batch, num_heads, tokens, 1 or key channels)``, at most 0.
        strength: ``(batch, num_heads, tokens, 1)`` or ``None``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    log_decay: Tensor
    strength: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens in a row."""
        return self.query.shape[2]

    def map(self, change: Callable[[Tensor], Tensor]) -> Recurrence:
        """Apply ``change`` to every tensor."""
        strength = None if self.strength is None else change(self.strength)
        return Recurrence(
            change(self.query), change(self.key), change(self.value), change(self.log_decay), strength
        )

    def tokens(self, start: int, stop: int) -> Recurrence:
        """Select tokens ``start`` to ``stop - 1``."""
        return self.map(lambda tensor: tensor[:, :, start:stop])


def mix_token(token: Recurrence, state: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one token by the formula of :class:`Recurrence`, at the same cost at any position.

    The output is ``(batch, num_heads, 1, value channels)``, the new state ``(batch, num_heads, key
    channels, value channels)``.
    """
    with torch.autocast(state.device.type, enabled=False):
        state = state * token.log_decay.exp().mT
        written = token.value
        if token.strength is not None:
            written = token.strength * (written - token.key @ state)
        state = state + token.key.mT @ written
        return token.query @ state, state


_STRONGEST_DECAY = -1000.0
CHUNK = 64
CHANNEL_CHUNK = 16
"""Tokens of a chunk where each channel has its own decay. They see one another through a number for each pair
and channel, since a product of queries and keys would need exp(-log_decay), which overflows."""


def mix_chunks(
    inputs: Recurrence, state: Tensor | None = None, document_ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the formula of :class:`Recurrence` for all tokens, in matrix products.

    Inside a chunk, tokens see one another as in attention; between chunks the state is passed on, which a
    chunk changes by one linear map (Yang et al. 2023, arXiv 2312.06635; with the delta rule 2024, arXiv
    2406.06484 and 2412.06464).

    Args:
        inputs: The recurrence of all tokens.
        state: The state before the first token; ``None`` = empty.
        document_ids: int64 ``(batch, tokens)``, each document in one piece, without a ``state``; the state is
            emptied between documents. ``None`` = one document in each row.

    Returns:
        The output ``(batch, num_heads, tokens, value channels)`` and, without documents, the last state.
    """
    with torch.autocast(inputs.query.device.type, enabled=False):
        return _mix_chunks(inputs, state, document_ids)


def chunk_size(num_decays: int, num_tokens: int) -> int:
    """Tokens of a chunk, which are fewer where a head has one decay for each channel."""
    return min(CHUNK if num_decays == 1 else CHANNEL_CHUNK, num_tokens)


def _mix_chunks(
    inputs: Recurrence, state: Tensor | None, document_ids: Tensor | None
) -> tuple[Tensor, Tensor]:
    num_tokens, size = inputs.num_tokens, chunk_size(inputs.log_decay.shape[-1], inputs.num_tokens)
    # Padding at the end has key 0 and decay 1: it writes nothing and removes nothing.
    chunks = inputs.map(functools.partial(_cut, size=size))
    query, key, value, strength = chunks.query, chunks.key, chunks.value, chunks.strength
    # The sum of logarithms since the chunk began, including the token's own. It is computed in float64
    # because its differences are used: after one huge decay a float32 sum no longer resolves the small ones.
    # A decay of exp(-1000) is zero in every type, and the bound keeps the sum, and so its error, small.
    log_decay = chunks.log_decay.double().clamp_min(_STRONGEST_DECAY).cumsum(3)
    total = log_decay[..., -1:, :]
    since_start, until_end = (x.exp().to(key.dtype) for x in (log_decay, total - log_decay))
    inside, from_start, to_end, throughout = _reach(document_ids, size, query.device)

    reading = _where(from_start, query * since_start)
    writing = _where(to_end, key * until_end)
    kept = _where(throughout, total.exp().to(key.dtype)).mT  # (..., 1 or key channels, 1)
    weights = _decayed_products(query, key, log_decay, inside)
    if strength is None:
        added = writing.mT @ value
        before, state = _carry(kept, added, state, inputs)
        mixed = reading @ before + weights @ value
    else:
        # The write of a token depends on the earlier writes of its chunk: a triangular system.
        related = strength * _decayed_products(key, key, log_decay, inside.tril(-1))
        recalled_key = _where(from_start, strength * key * since_start)
        solved = torch.linalg.solve_triangular(
            related, torch.cat([strength * value, recalled_key], dim=-1), upper=False, unitriangular=True
        )
        own, recalled = solved.split([value.shape[-1], key.shape[-1]], dim=-1)
        identity = torch.eye(key.shape[-1], dtype=key.dtype, device=key.device)
        kept = kept * identity - writing.mT @ recalled
        before, state = _carry(kept, writing.mT @ own, state, inputs)
        mixed = reading @ before + weights @ (own - recalled @ before)
    return mixed.flatten(2, 3)[:, :, :num_tokens], state


def _reach(
    document_ids: Tensor | None, size: int, device: torch.device
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Which tokens reach which in each chunk, bool; ``None`` = all of them.

    The first says whether a token (row) sees a token (column) of its chunk, ``(..., size, size)``; the others
    whether a token sees the state before its chunk, whether the state after the chunk includes a token, both
    ``(batch, 1, chunks, size, 1)``, and whether it includes the state before, ``(batch, 1, chunks, 1, 1)``.
    """
    inside = torch.ones(size, size, dtype=torch.bool, device=device).tril()
    if document_ids is None:
        return inside, None, None, None
    ids = _cut(document_ids[:, None, :, None], size)
    last = ids[..., -1:, :]
    # The first chunk continues its own document, of which nothing came before.
    from_start = ids == torch.cat([ids[:, :, :1, :1], last[:, :, :-1]], dim=2)
    return inside & (ids == ids.mT), from_start, ids == last, from_start[..., -1:, :]


def _where(seen: Tensor | None, tensor: Tensor) -> Tensor:
    return tensor if seen is None else tensor * seen


def _cut(tensor: Tensor, size: int) -> Tensor:
    """Cut ``(batch, heads, tokens, channels)``, zeros at the end, into ``(…, chunks, size, channels)``."""
    missing = -tensor.shape[2] % size
    padded = F.pad(tensor, (0, 0, 0, missing)) if missing else tensor
    return torch.unflatten(padded, 2, (-1, size))


def _decayed_products(left: Tensor, right: Tensor, log_decay: Tensor, seen: Tensor) -> Tensor:
    """Sum over channels of left_i right_j exp(log_decay_i - log_decay_j) where i sees j, else 0.

    ``log_decay`` holds sums of logarithms ``(..., size, 1 or channels)`` in float64; ``seen`` is False above
    the diagonal, where the exponent would be positive.
    """
    if log_decay.shape[-1] == 1:
        decay = (log_decay - log_decay.mT).to(left.dtype).masked_fill(~seen, float("-inf")).exp()
        return left @ right.mT * decay
    between = (log_decay.unsqueeze(-2) - log_decay.unsqueeze(-3)).to(left.dtype)
    decay = between.masked_fill(~seen.unsqueeze(-1), float("-inf")).exp()
    return ((decay * right.unsqueeze(-3)) @ left.unsqueeze(-1)).squeeze(-1)


def _carry(kept: Tensor, added: Tensor, state: Tensor | None, inputs: Recurrence) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk, ``(batch, heads, chunks, ...)``, and after the last.

    A chunk multiplies the state by ``kept``, which is a matrix ``(..., key channels, key channels)`` with a
    ``strength`` and otherwise factors ``(..., 1 or key channels, 1)``, and adds ``added``.
    """
    state = added.new_zeros(added[:, :, 0].shape) if state is None else state
    is_matrix = inputs.strength is not None
    before = []
    # `unbind`, not slices: its backward is one stack, while each slice's is a zero-filled copy.
    for share, new in zip(kept.unbind(2), added.unbind(2), strict=True):
        before.append(state)
        state = (share @ state if is_matrix else share * state) + new
    return torch.stack(before, dim=2), state


def recurrence_flops(shape: tuple[int, int, int], size: int, *, delta_rule: bool) -> int:
    """Matrix-product FLOPs of one token in :func:`mix_chunks`, in chunks of ``size`` tokens.

    ``shape`` is that of the state of all heads; with the ``delta_rule`` the recurrence has a ``strength``.
    """
    num_heads, key, value = shape
    products = size * (key + value) + 2 * key * value  # weights and their use; reading and writing the state
    if delta_rule:
        # Weights among keys; what tokens recall from the state and remove from it; the map of a chunk,
        # applied once; the triangular system, half of a square.
        products += size * key + key * value + key * key + key * key * value // size
        products += size * (key + value) // 2
    return 2 * num_heads * products
