"""transformers' LlamaForCausalLM in the benchmark's shape (transformers 5.3)."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from benchmarks.peers.decoder_shape import DecoderShape, transformers_arguments
from benchmarks.peers.measured import Loss


def build_transformers(shape: DecoderShape) -> Any:
    """A freshly initialised LlamaForCausalLM."""
    return LlamaForCausalLM(LlamaConfig(**transformers_arguments(shape)))  # type: ignore[no-untyped-call]


def transformers_loss(model: Any, compiled: bool) -> Loss:
    """The loss that the model computes itself from targets that are already shifted."""

    def loss(input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = model(input_ids=input_ids, labels=targets, shift_labels=targets).loss
        return value

    return torch.compile(loss) if compiled else loss
