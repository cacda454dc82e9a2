"""Checks of what a network is called with."""

from __future__ import annotations

import torch

from insight.models.caches import DecoderCache
from insight.runtime.errors import ConfigError


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
    if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
        raise ConfigError(
            f"input_ids is {input_ids.dtype} of shape {tuple(input_ids.shape)}, not (batch, sequence)",
            "pass token ids, one row a sequence",
        )
    if not input_ids.numel():
        raise ConfigError(
            f"input_ids has shape {tuple(input_ids.shape)}: there is no token", "pass at least one token"
        )
    for name, ids in (("document_ids", document_ids), ("position_ids", position_ids)):
        if ids is not None and ids.shape != input_ids.shape:
            raise ConfigError(
                f"{name} has shape {tuple(ids.shape)}, input_ids {tuple(input_ids.shape)}",
                f"give {name} the shape of input_ids",
            )
    for name, numbers in (("prefix_lengths", prefix_lengths), ("lengths", lengths)):
        if numbers is not None and numbers.shape != input_ids.shape[:1]:
            raise ConfigError(
                f"{name} has shape {tuple(numbers.shape)}, input_ids {tuple(input_ids.shape)}",
                f"give {name} one number a row",
            )
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


def check_positions(position_ids: torch.Tensor, num_positions: int | None) -> None:
    """Refuse positions beyond a learned table.

    Raises:
        ConfigError: A position has no row.
    """
    if num_positions is None or torch.compiler.is_compiling():
        return
    last = int(position_ids.max())
    if last >= num_positions:
        raise ConfigError(
            f"position {last}: learned positions end at {num_positions - 1} (max_sequence_length="
            f"{num_positions})",
            "shorten the text or train with a larger max_sequence_length",
        )


def name_unknown_id(input_ids: torch.Tensor, vocabulary_size: int) -> ConfigError:
    """The error for token ids that the embedding has no row for."""
    worst = int(input_ids.min()) if int(input_ids.min()) < 0 else int(input_ids.max())
    return ConfigError(
        f"token id {worst}: the vocabulary has {vocabulary_size} tokens, 0 to {vocabulary_size - 1}",
        "use the tokenizer that the network was trained with",
    )


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
