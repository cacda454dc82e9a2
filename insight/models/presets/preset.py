"""A published network by name."""

from __future__ import annotations

from dataclasses import dataclass

from insight.models.decoder import DecoderConfig
from insight.models.encoder_decoder import EncoderDecoderConfig


@dataclass(frozen=True)
class Preset:
    """The shape of a published network; weights are not part of it.

    Args:
        config: Its configuration.
        vocabulary_size: Rows of its embedding; of both where source and target share one.
        source: Where it was published.
    """

    config: DecoderConfig | EncoderDecoderConfig
    vocabulary_size: int
    source: str
