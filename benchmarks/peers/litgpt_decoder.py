"""litgpt's GPT in the benchmark's shape, initialised and trained as by its ``pretrain`` (litgpt 0.5.13)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.pretrain import initialize_weights
from litgpt.utils import chunked_cross_entropy

from benchmarks.peers.decoder_shape import DecoderShape, litgpt_arguments
from benchmarks.peers.measured import Loss


def build_litgpt(shape: DecoderShape) -> Any:
    """A freshly initialised GPT."""
    model = GPT(Config(**litgpt_arguments(shape)))
    initialize_weights(Fabric(accelerator="cpu", devices=1), model, shape.num_layers, shape.hidden_size)
    if shape.tie_embeddings:
        model.transformer.wte.weight = model.lm_head.weight
    model.max_seq_length = shape.sequence_length
    return model


def litgpt_loss(model: Any, compiled: bool) -> Loss:
    """litgpt's training loss.

    Eager, it is the loss of ``pretrain``: cross-entropy in chunks of 128 rows. Compiled, the loss is part of
    the compiled function, which is faster than ``pretrain``, where only the network is compiled.
    """

    def loss(input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = chunked_cross_entropy(
            model(input_ids), targets, chunk_size=0 if compiled else 128
        )
        return value

    return torch.compile(loss) if compiled else loss
