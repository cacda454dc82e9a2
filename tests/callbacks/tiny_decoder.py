"""The real decoder in the tiny module, for callbacks that let it write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_run import TinyData, TinyModule

from insight.data.tokenizers import ByteTokenizer
from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU


def use_decoder(patch: pytest.MonkeyPatch, max_sequence_length: int) -> None:
    """A decoder with dropout and a token a byte in place of the tiny network, in this test."""
    tokenizer = ByteTokenizer()
    config = DecoderConfig(
        hidden_size=16,
        num_layers=1,
        attention=GroupedQueryAttention(num_heads=2, num_key_value_heads=1),
        feed_forward=SwiGLU(intermediate_size=16),
        max_sequence_length=max_sequence_length,
        dropout=0.3,
    )

    class WithDecoder(TinyModule):
        def __init__(self, schedule: Any = None) -> None:
            super().__init__(schedule)
            self.network = config.build(tokenizer.vocabulary_size)  # type: ignore[assignment]

        def logits(self, batch: Any) -> torch.Tensor:
            return self.network.logits(self.network(batch.input_ids))  # type: ignore[operator]

    patch.setattr("tiny_run.TinyModule", WithDecoder)
    patch.setattr(TinyData, "tokenizer", tokenizer, raising=False)
