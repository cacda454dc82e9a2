"""The shape of the one decoder that every contender trains."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class DecoderShape:
    """A Llama-style decoder: RoPE, RMSNorm before each part, SwiGLU, no biases.

    Args:
        hidden_size: Width of the residual stream.
        num_layers: Number of blocks.
        num_heads: Query heads.
        num_key_value_heads: Key and value heads.
        head_dim: Width of a head.
        intermediate_size: Width of the SwiGLU.
        vocabulary_size: Rows of the embedding and of the head.
        sequence_length: Tokens per training window.
        tie_embeddings: Whether the head is the embedding.
        rope_base: Base of the rotary frequencies.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary_size: int
    sequence_length: int
    tie_embeddings: bool = False
    rope_base: float = 10000.0

    @classmethod
    def from_json(cls, text: str) -> DecoderShape:
        """The shape written by :meth:`to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    def matmul_parameters(self) -> int:
        """Number of weights in matrix products: projections, SwiGLU and head, without the embedding."""
        query_and_output = 2 * self.hidden_size * self.num_heads * self.head_dim
        key_and_value = 2 * self.hidden_size * self.num_key_value_heads * self.head_dim
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        block = query_and_output + key_and_value + feed_forward
        return self.num_layers * block + self.hidden_size * self.vocabulary_size

    def flops_per_token(self) -> int:
        """Matrix-product FLOPs of one trained token, forward and backward.

        They are 6 per weight (2 forward, 4 backward) and 12 · sequence · width per layer for scores and
        weighted sum over the whole square, as in PaLM (arXiv 2204.02311, appendix B) and in Insight.
        """
        attention = 12 * self.num_layers * self.sequence_length * self.num_heads * self.head_dim
        return 6 * self.matmul_parameters() + attention


def throughput_shape() -> DecoderShape:
    """The decoder of ``train_throughput``."""
    return DecoderShape(
        hidden_size=384,
        num_layers=6,
        num_heads=6,
        num_key_value_heads=6,
        head_dim=64,
        intermediate_size=1024,
        vocabulary_size=8192,
        sequence_length=256,
    )


def litgpt_arguments(shape: DecoderShape) -> dict[str, Any]:
    """Keyword arguments of ``litgpt.Config``."""
    return {
        "name": "benchmark",
        "block_size": shape.sequence_length,
        "n_layer": shape.num_layers,
        "n_embd": shape.hidden_size,
        "n_head": shape.num_heads,
        "n_query_groups": shape.num_key_value_heads,
        "head_size": shape.head_dim,
        "vocab_size": shape.vocabulary_size,
        "padded_vocab_size": shape.vocabulary_size,
        "intermediate_size": shape.intermediate_size,
        "mlp_class_name": "LLaMAMLP",
        "norm_class_name": "RMSNorm",
        "rotary_percentage": 1.0,
        "rope_base": int(shape.rope_base),
        "parallel_residual": False,
        "bias": False,
    }


def transformers_arguments(shape: DecoderShape) -> dict[str, Any]:
    """Keyword arguments of ``transformers.LlamaConfig``."""
    return {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocabulary_size,
        "max_position_embeddings": shape.sequence_length,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "tie_word_embeddings": shape.tie_embeddings,
        "attn_implementation": "sdpa",
        "use_cache": False,
    }
