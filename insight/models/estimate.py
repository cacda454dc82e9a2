"""The cost of a network before any memory is taken for it: parameters, memory, operations.

The network is built and run on stand-ins that have shapes but no values, and the tensors alive at each moment
are counted. No table of formulas is used, so the estimate holds for every variant, including a user's own.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from insight.models.caches import CacheShape, CrossCache, EncoderStates, LayerCache
from insight.models.checks import require_positive
from insight.models.decoder import Decoder, DecoderConfig
from insight.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from insight.models.live_memory import LiveMemory
from insight.runtime.errors import ConfigError

NetworkConfig = DecoderConfig | EncoderDecoderConfig
Network = Decoder | EncoderDecoder


class CacheBytes(NamedTuple):
    """Bytes of one layer's cache, for each row.

    Attributes:
        fixed: Bytes that do not grow: those of a full window, of a recurrent state, of a source.
        per_token: Bytes that each further token adds.
    """

    fixed: int
    per_token: int


class TrainingMemory(NamedTuple):
    """Bytes of one training step, without weights and optimizer.

    Attributes:
        activations: Bytes kept between forward and backward.
        peak_activations: The most bytes of tensors of the step alive at once, without gradients.
        peak: The most bytes alive at once, including gradients of the weights.
    """

    activations: int
    peak_activations: int
    peak: int


class NetworkSize(NamedTuple):
    """The size of a network, which does not depend on training.

    Attributes:
        num_parameters: Number of trainable parameters; a shared matrix counts once.
        num_active_parameters: Trainable parameters that one token uses; fewer if tokens choose among experts.
        flops_per_token: Matrix-product FLOPs of a forward pass per token, at the given length; with an
            encoder, those of a pair of that length divided by it.
        cache: Bytes of each layer's cache at the given length; ``None`` if no cache can have that length.
    """

    num_parameters: int
    num_active_parameters: int
    flops_per_token: int
    cache: tuple[CacheBytes, ...] | None


def network_size(
    config: NetworkConfig,
    vocabulary_size: int,
    sequence_length: int,
    dtype: torch.dtype = torch.float32,
    source_vocabulary_size: int | None = None,
) -> NetworkSize:
    """Count parameters, operations, and a cache of ``dtype`` for that many tokens, also of a source.

    Raises:
        ConfigError: A number is below 1.
    """
    require_positive(sequence_length=sequence_length)
    network = build_without_memory(config, vocabulary_size, source_vocabulary_size)
    if isinstance(network, EncoderDecoder):
        flops = network.flops_per_pair(sequence_length, sequence_length) // (3 * sequence_length)
    else:
        flops = network.flops_per_token(sequence_length) // 3
    return NetworkSize(
        network.num_parameters(),
        network.num_active_parameters(),
        flops,
        _cache_bytes(network, sequence_length, dtype),
    )


def decoder_of(config: NetworkConfig) -> DecoderConfig:
    """Return the configuration of the decoder, which is the whole network or a half of it."""
    return config.decoder if isinstance(config, EncoderDecoderConfig) else config


def longest_of(config: NetworkConfig) -> int:
    """Return the most tokens of a sequence, on either side."""
    longest = decoder_of(config).max_sequence_length
    if isinstance(config, EncoderDecoderConfig):
        return min(longest, config.encoder.max_sequence_length)
    return longest


def build_without_memory(
    config: NetworkConfig, vocabulary_size: int, source_vocabulary_size: int | None = None
) -> Network:
    """Build the network on the meta device, which needs no memory at any size.

    ``source_vocabulary_size`` is that of an encoder with a vocabulary of its own.
    """
    with torch.device("meta"):
        if isinstance(config, EncoderDecoderConfig):
            return config.build(vocabulary_size, source_vocabulary_size)
        return config.build(vocabulary_size)


def training_memory(
    config: NetworkConfig,
    vocabulary_size: int,
    batch_size: int,
    sequence_length: int,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    source_vocabulary_size: int | None = None,
) -> TrainingMemory:
    """Run a training step on stand-ins, with the kernels that this machine's CPU would use, not compiled.

    The step ends at the hidden states; ``insight.training.losses.loss_memory`` counts the loss. With an
    encoder, ``sequence_length`` is that of each source and each target. ``dtype`` is that of the weights, and
    ``autocast`` that of the products if it differs (mixed precision).

    Raises:
        ConfigError: A number is below 1, or the network's memory depends on the text.
    """
    require_positive(batch_size=batch_size, sequence_length=sequence_length)
    network = build_without_memory(config, vocabulary_size, source_vocabulary_size).to(dtype).train()
    try:
        with FakeTensorMode():
            _give_stand_ins(network)
            ids = torch.zeros(batch_size, sequence_length, dtype=torch.int64)
            return measure_training_memory(network, ids, autocast)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ConfigError(
            "the memory of this network depends on the text that it reads", "measure a real run instead"
        ) from error


def measure_training_memory(
    network: Network, input_ids: torch.Tensor, autocast: torch.dtype | None = None
) -> TrainingMemory:
    """Measure as :func:`training_memory` does, for an existing network; its gradients stay in place."""
    present = [*network.parameters(), *network.buffers(), input_ids]
    sequences = (input_ids, input_ids) if isinstance(network, EncoderDecoder) else (input_ids,)
    with LiveMemory(present) as memory, contextlib.ExitStack() as hooks:
        for parameter in network.parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(memory.set_aside)  # type: ignore[no-untyped-call]
                hooks.callback(hook.remove)
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            hidden = network(*sequences)
        activations = memory.live_bytes
        hidden.backward(torch.empty_like(hidden))
    return TrainingMemory(activations, memory.peak_live_bytes, memory.peak_bytes)


def _give_stand_ins(network: nn.Module) -> None:
    """Replace tensors of the meta device by tensors of the CPU, under ``FakeTensorMode``."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            stand_in = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(stand_in, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _cache_bytes(network: Network, length: int, dtype: torch.dtype) -> tuple[CacheBytes, ...] | None:
    """The bytes that the last token added to each layer's cache, and the bytes that do not grow."""
    before = max(length - 1, 1)
    try:
        shorter, longer = (_bytes_of_caches(network, size, length, dtype) for size in (before, length))
    except ConfigError:  # these positions would make cached keys stale
        return None
    pairs = zip(shorter, longer, strict=True)
    return tuple(CacheBytes(more - (more - less) * length, more - less) for less, more in pairs)


def _bytes_of_caches(network: Network, length: int, source_length: int, dtype: torch.dtype) -> list[int]:
    decoder, states, device = network, None, torch.device("meta")
    shape = CacheShape(1, length, dtype, device)
    if isinstance(network, EncoderDecoder):
        decoder = network.decoder
        states = torch.empty(1, source_length, network.config.encoder.hidden_size, device=device)
    assert isinstance(decoder, Decoder)
    memory = LiveMemory([*decoder.parameters(), *(() if states is None else [states])])
    sizes: list[int] = []
    kept: list[LayerCache | CrossCache] = []
    for block in decoder.layers():
        before = memory.live_bytes
        with memory, torch.no_grad():
            kept.append(block.attention.make_cache(shape))
            if states is not None and block.cross_attention is not None:
                project = block.cross_attention.project_states
                kept.append(CrossCache(EncoderStates(states), project, dtype))
        sizes.append(memory.live_bytes - before)
    return sizes
