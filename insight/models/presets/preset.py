"""A published network by name."""

from __future__ import annotations

from dataclasses import dataclass

from insight.models.decoder import DecoderConfig
from insight.models.encoder_decoder import EncoderDecoderConfig


@dataclass(frozen=True)
class Preset:
    """The shape of a published network, without weights.

    Args:
        config: Configuration of the network.
        vocabulary_size: Rows of the embedding, or of both if source and target share one.
        source: Where it was published.
    """

    config: DecoderConfig | EncoderDecoderConfig
    vocabulary_size: int
    source: str
