"""The interface of a layer's cache, and the cache of a whole decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from insight.runtime.errors import ConfigError


class LayerCache(ABC):
    """Keys and values of one layer.

    Attributes:
        length: Tokens stored.
    """

    length: int

    @abstractmethod
    def append(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new tokens and return what their queries may look at, old and new, in order.

        Args:
            key: ``(batch, num_key_value_heads, new tokens, head_dim)``.
            value: Like ``key``.
        """

    @abstractmethod
    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""


class DecoderCache:
    """The caches of all layers, which advance together.

    Args:
        layers: One cache a layer.
        max_length: Tokens that fit.
    """

    def __init__(self, layers: Sequence[LayerCache], max_length: int) -> None:
        self.layers = list(layers)
        self.max_length = max_length

    @property
    def length(self) -> int:
        """Tokens stored."""
        return self.layers[0].length

    def require_room(self, num_tokens: int) -> None:
        """Refuse tokens that do not fit, before any layer has stored them.

        Raises:
            ConfigError: The cache would overflow.
        """
        if self.length + num_tokens > self.max_length:
            raise ConfigError(
                f"{self.length} cached tokens and {num_tokens} new ones exceed max_length={self.max_length} "
                "of the cache",
                "make a longer cache or drop the oldest tokens",
            )

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens in every layer."""
        for layer in self.layers:
            layer.truncate(length)
