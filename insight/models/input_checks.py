"""Checks of what a network is called with."""

from __future__ import annotations

import torch

from insight.models.caches import DecoderCache, Memory
from insight.runtime.errors import ConfigError

_INTEGERS = (torch.int64, torch.int32)


def check_inputs(
    input_ids: torch.Tensor,
    document_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: DecoderCache | None,
    prefix_lengths: torch.Tensor | None,
    lengths: torch.Tensor | None,
) -> None:
    """Refuse arguments of a decoder that do not fit together.

    Raises:
        ConfigError: A shape or type is wrong, or two arguments exclude each other.
    """
    _check_ids(input_ids)
    _check_shapes(input_ids, document_ids=document_ids, position_ids=position_ids)
    _check_type("document_ids", document_ids)
    _check_type("position_ids", position_ids)
    for name, numbers in (("prefix_lengths", prefix_lengths), ("lengths", lengths)):
        if numbers is not None and numbers.shape != input_ids.shape[:1]:
            raise ConfigError(
                f"{name} has shape {tuple(numbers.shape)}, input_ids {tuple(input_ids.shape)}",
                f"give {name} one number a row",
            )
        _check_type(name, numbers)
    if cache is not None and document_ids is not None:
        raise ConfigError(
            "document_ids with a cache: cached tokens carry no document ids",
            "decode each document in a row of its own",
        )
    if lengths is not None and cache is None:
        raise ConfigError(
            "lengths without a cache: padding is told apart by document_ids there",
            "give padding a document id of its own, or pass a cache",
        )
    if prefix_lengths is not None:
        _check_prefix(document_ids, cache, lengths)


def check_encoder_inputs(
    input_ids: torch.Tensor,
    token_mask: torch.Tensor | None,
    document_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
) -> None:
    """Refuse arguments of an encoder that do not fit together.

    Raises:
        ConfigError: A shape or type is wrong, or two arguments exclude each other.
    """
    _check_ids(input_ids)
    _check_shapes(input_ids, token_mask=token_mask, document_ids=document_ids, position_ids=position_ids)
    _check_type("document_ids", document_ids)
    _check_type("position_ids", position_ids)
    if token_mask is not None and token_mask.dtype != torch.bool:
        raise ConfigError(
            f"token_mask is {token_mask.dtype}: it says of each id whether it is a token",
            "pass bool, False where padding stands",
        )
    if token_mask is not None and document_ids is not None:
        raise ConfigError(
            "token_mask with document_ids: padding among documents is a document of its own",
            "give padding a document id of its own and leave token_mask out",
        )


def check_memory(
    reads_memory: bool, memory: Memory | None, cache: DecoderCache | None, batch_size: int
) -> None:
    """Refuse a memory that is missing, too much, or of other rows.

    Raises:
        ConfigError: It does not fit the decoder, its cache or its input.
    """
    if memory is not None and not reads_memory:
        raise ConfigError(
            "memory for a decoder without cross-attention", "build it with EncoderDecoderConfig"
        )
    if memory is not None and cache is not None:
        raise ConfigError(
            "memory with a cache: the cache holds what was made of it", "pass it to make_cache only"
        )
    if reads_memory and memory is None and (cache is None or not cache.memories):
        raise ConfigError(
            "a decoder with cross-attention without a memory to read",
            "pass what encode() returned, to forward or to make_cache",
        )
    if memory is not None and memory.states.shape[0] != batch_size:
        raise ConfigError(
            f"memory has {memory.states.shape[0]} rows, the target {batch_size}",
            "encode one source for each row",
        )


def check_positions(position_ids: torch.Tensor, num_positions: int | None) -> None:
    """Refuse positions outside a learned table.

    Raises:
        ConfigError: A position has no row.
    """
    if num_positions is None or not has_values(position_ids):
        return
    first, last = (int(bound) for bound in position_ids.aminmax())
    if first < 0:
        raise ConfigError(f"position {first}: learned positions begin at 0", "count positions from 0")
    if last >= num_positions:
        raise ConfigError(
            f"position {last}: learned positions end at {num_positions - 1} (max_sequence_length="
            f"{num_positions})",
            "shorten the text or train with a larger max_sequence_length",
        )


def has_values(tensor: torch.Tensor) -> bool:
    """Whether there are numbers to look at.

    A compiled graph cannot ask for them, and an estimate runs on stand-ins that have none.
    """
    if torch.compiler.is_compiling():
        return False
    return type(tensor) is torch.Tensor and not tensor.is_meta


def name_unknown_id(input_ids: torch.Tensor, vocabulary_size: int) -> ConfigError:
    """The error for token ids that the embedding has no row for."""
    worst = int(input_ids.min()) if int(input_ids.min()) < 0 else int(input_ids.max())
    return ConfigError(
        f"token id {worst}: the vocabulary has {vocabulary_size} tokens, 0 to {vocabulary_size - 1}",
        "use the tokenizer that the network was trained with",
    )


def _check_ids(input_ids: torch.Tensor) -> None:
    if input_ids.ndim != 2 or input_ids.dtype not in _INTEGERS:
        raise ConfigError(
            f"input_ids is {input_ids.dtype} of shape {tuple(input_ids.shape)}, not (batch, sequence)",
            "pass token ids, one row a sequence",
        )
    if not input_ids.numel():
        raise ConfigError(
            f"input_ids has shape {tuple(input_ids.shape)}: there is no token", "pass at least one token"
        )


def _check_shapes(input_ids: torch.Tensor, **others: torch.Tensor | None) -> None:
    for name, other in others.items():
        if other is not None and other.shape != input_ids.shape:
            raise ConfigError(
                f"{name} has shape {tuple(other.shape)}, input_ids {tuple(input_ids.shape)}",
                f"give {name} the shape of input_ids",
            )


def _check_type(name: str, numbers: torch.Tensor | None) -> None:
    if numbers is not None and numbers.dtype not in _INTEGERS:
        raise ConfigError(f"{name} is {numbers.dtype}: these are whole numbers", f"pass {name}.long()")


def _check_prefix(
    document_ids: torch.Tensor | None, cache: DecoderCache | None, lengths: torch.Tensor | None
) -> None:
    if document_ids is not None:
        raise ConfigError(
            "prefix_lengths with document_ids: a prefix lies at the start of a row, not of a document",
            "pass one document a row",
        )
    if lengths is not None or (cache is not None and cache.length):
        raise ConfigError(
            "prefix_lengths with cached tokens or lengths: the prefix must come whole, in the first chunk",
            "pass the prefix first, in rows of equal length",
        )
