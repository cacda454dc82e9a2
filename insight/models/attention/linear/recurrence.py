"""The state of a linear mixer: a matrix a head that each token decays, writes to and reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Recurrence:
    """What each token does to the state, a matrix S ``(key channels, value channels)`` a head::

        S_t = exp(log_decay_t) * S_(t-1) + key_t u_t^T        output_t = S_t^T query_t

    Without ``strength`` u_t is the value: linear attention (Katharopoulos et al. 2020, arXiv 2006.16236).
    With it u_t = strength_t * (value_t - what the decayed state returns for key_t): the delta rule (Yang et
    al. 2024, arXiv 2412.06464), which corrects the value under a key instead of adding to it.

    Args:
        query: ``(batch, num_heads, tokens, key channels)``, float32 or float64 like all of these.
        key: Like ``query``.
        value: ``(batch, num_heads, tokens, value channels)``.
        log_decay: ``(batch, num_heads, tokens, 1 or key channels)``, at most 0.
        strength: ``(batch, num_heads, tokens, 1)`` or ``None``.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    log_decay: torch.Tensor
    strength: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of a row."""
        return self.query.shape[2]

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Recurrence:
        """The same with every tensor changed."""
        strength = None if self.strength is None else change(self.strength)
        return Recurrence(
            change(self.query), change(self.key), change(self.value), change(self.log_decay), strength
        )

    def tokens(self, start: int, stop: int) -> Recurrence:
        """Tokens ``start`` to ``stop - 1``."""
        return self.map(lambda tensor: tensor[:, :, start:stop])

    def empty_state(self) -> torch.Tensor:
        """Zeros ``(batch, num_heads, key channels, value channels)``."""
        batch_size, num_heads, _, key_channels = self.key.shape
        return self.value.new_zeros(batch_size, num_heads, key_channels, self.value.shape[-1])


def mix_token(token: Recurrence, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One token by the formula of :class:`Recurrence`: the form for decoding, at the same cost anywhere.

    Args:
        token: A single one.
        state: ``(batch, num_heads, key channels, value channels)``.

    Returns:
        The output ``(batch, num_heads, 1, value channels)`` and the new state.
    """
    with torch.autocast(state.device.type, enabled=False):
        state = state * token.log_decay.exp().mT
        written = token.value
        if token.strength is not None:
            written = token.strength * (written - token.key @ state)
        state = state + token.key.mT @ written
        return token.query @ state, state
