"""Insight's decoder in the shape that the peers train, and its loss."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers.decoder_shape import DecoderShape
from benchmarks.peers.measured import Loss
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention, Rope, SwiGLU
from insight.training.losses import linear_cross_entropy


def decoder_config(shape: DecoderShape) -> DecoderConfig:
    """The configuration of Insight's decoder with ``shape``."""
    return DecoderConfig(
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        attention=GroupedQueryAttention(
            num_heads=shape.num_heads,
            num_key_value_heads=shape.num_key_value_heads,
            head_dim=shape.head_dim,
            position=Rope(base=shape.rope_base),
        ),
        feed_forward=SwiGLU(intermediate_size=shape.intermediate_size),
        max_sequence_length=shape.sequence_length,
        tie_embeddings=shape.tie_embeddings,
    )


def shape_of(network: dict[str, Any], vocabulary_size: int, sequence_length: int) -> DecoderShape:
    """The shape of a network that Insight trained, for the peers.

    Args:
        network: ``DecoderConfig`` as a dictionary.
        vocabulary_size: Rows of the embedding.
        sequence_length: Tokens per training window.

    Raises:
        SystemExit: The peers do not support the network.
    """
    values = network["init_args"]
    attention, feed_forward = values["attention"], values["feed_forward"]
    kinds = (attention["class_path"].rpartition(".")[2], feed_forward["class_path"].rpartition(".")[2])
    if kinds != ("GroupedQueryAttention", "SwiGLU"):
        raise SystemExit(
            f"the peers are built with GroupedQueryAttention and SwiGLU, not {' and '.join(kinds)}"
        )
    heads = attention["init_args"]
    hidden_size = values["hidden_size"]
    num_heads = heads["num_heads"]
    return DecoderShape(
        hidden_size=hidden_size,
        num_layers=values["num_layers"],
        num_heads=num_heads,
        num_key_value_heads=heads["num_key_value_heads"] or num_heads,
        head_dim=heads["head_dim"] or hidden_size // num_heads,
        intermediate_size=feed_forward["init_args"]["intermediate_size"] or -(-hidden_size * 8 // 192) * 64,
        vocabulary_size=vocabulary_size,
        sequence_length=sequence_length,
        tie_embeddings=values["tie_embeddings"],
        rope_base=heads["position"]["init_args"].get("base", 10000.0),
    )


def decoder_loss(network: Decoder, compiled: bool) -> Loss:
    """Mean cross-entropy as in Insight's module; ``compiled`` compiles the network but not the loss."""
    forward = torch.compile(network, dynamic=False) if compiled else network

    def loss(input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hidden = forward(input_ids)
        sums = linear_cross_entropy(
            hidden, network.head_weight, targets, soft_cap=network.config.logit_soft_cap
        )
        return sums.loss / sums.num_valid

    return loss
